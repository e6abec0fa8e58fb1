"""Exemplars of a stored index, latent by latent. Knows the arrays of `IndexContent`; no statistics."""

import numpy as np

from sae.concepts.concept import Exemplar
from sae.concepts.content import N_DECILES, IndexContent

MIDDLE, LOW = (4, 5), (8, 9)
"""Deciles, counted from the strongest, that stand for the levels "middle" and "low"."""
_GREY_TILE = bytes.fromhex(
    "52494646240000005745425056503820180000005001009d012a0100010001402625a40004740000e4400000"
)
"""One grey pixel, as WebP."""


class ExemplarTable:
    """Reads exemplars and thumbnails; latents are taken as checked."""

    def __init__(self, content: IndexContent) -> None:
        self._table, self._images = content.exemplars, content.images
        self._captions, self._n_top = content.captions, content.header["n_top"]
        counts = content.exemplars["counts"]
        self._ends = np.cumsum(counts, dtype=np.int64).reshape(counts.shape)
        self._row = {int(number): row for row, number in enumerate(content.images["image_ids"])}

    def level(self, latent: int, level: str) -> list[Exemplar]:
        """The exemplars of one level; none of them is among the top ones unless that is asked."""
        top = self._shown(latent, range(self._n_top))
        if level == "top":
            return top
        shown, deciles = {exemplar.image_id for exemplar in top}, self.deciles(latent)
        rows = [e for number in (MIDDLE if level == "middle" else LOW) for e in deciles[number]]
        return [exemplar for exemplar in rows if exemplar.image_id not in shown]

    def deciles(self, latent: int) -> list[list[Exemplar]]:
        """Ten lists, from the strongest tenth to the weakest."""
        each = (self._table["image_ids"].shape[1] - self._n_top) // N_DECILES
        first = [self._n_top + number * each for number in range(N_DECILES)]
        return [self._shown(latent, range(start, start + each)) for start in first]

    def thumbnail(self, image_id: int) -> bytes:
        """WebP; a grey tile if there is none, KeyError if the image is no exemplar."""
        row = self._row[image_id]
        start, stop = self._images["offsets"][row : row + 2]
        return self._images["webp"][start:stop].tobytes() or _GREY_TILE

    def _shown(self, latent: int, slots: range) -> list[Exemplar]:
        table, found = self._table, []
        for slot in slots:
            number = int(table["image_ids"][latent, slot])
            if number < 0:
                break
            stop = self._ends[latent, slot]
            part = slice(stop - table["counts"][latent, slot], stop)
            found.append(
                Exemplar(
                    image_id=number,
                    activation=float(table["activations"][latent, slot]),
                    label=self._captions[self._row[number]],
                    patches=table["patches"][part].tolist(),
                    values=table["values"][part].astype(np.float32).tolist(),
                )
            )
        return found
