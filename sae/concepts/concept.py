"""What is known of one latent: plain values, and how they are read from the arrays of a stored index.

Knows `IndexContent`; knows nothing of files, models or how an index is searched.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64

from sae.concepts.content import N_DECILES, IndexContent

LEVELS = ("top", "middle", "low")
"""Exemplars are the strongest images, those around the median, and the weakest that still fire."""
MIDDLE, LOW = (4, 5), (8, 9)
"""Deciles, counted from the strongest, that stand for the levels "middle" and "low"."""
GUESS = 0.7
"""A name of less confidence than this is a guess."""
_GREY_TILE = bytes.fromhex(
    "52494646240000005745425056503820180000005001009d012a0100010001402625a40004740000e4400000"
)
"""One grey pixel, as WebP."""


@dataclass(frozen=True)
class Exemplar:
    """An image on which a concept fires."""

    image_id: int
    activation: float
    """Maximum over the image's tokens."""
    label: str
    """Caption of the image, "" if it has none."""
    patches: list[int]
    """Row-major numbers of the strongest firing patches, at most 16, strongest first."""
    values: list[float]
    """Their activations."""


class Neighbour(NamedTuple):
    """A latent near another one."""

    latent: int
    name: str
    score: float
    """Decoder cosine in -1 … 1, or share of images in common in 0 … 1."""


class ClassCount(NamedTuple):
    """A class on whose images a concept fires."""

    label: str
    tokens: int
    """Tokens of the class's images with an activation above tau (PatchSAE, equation 5)."""
    share: float
    """Of all such tokens."""


@dataclass(frozen=True)
class Concept:
    """A latent with its name, statistics and exemplars (statistics as in PatchSAE, section 3)."""

    latent: int
    name: str
    name_source: str
    """"text tower", "labels", "decoder", "notes" for a person's own, or "" for none."""
    name_score: float
    name_confidence: float
    """0 … 1; 0 where there is no name."""
    frequency: float
    """Share of images with any activation above 0."""
    token_frequency: float
    """Share of tokens with an activation above 0."""
    mean_activation: float
    """Mean over the images in which it fires of the mean over all tokens."""
    patch_mean_activation: float
    """The same over patches alone, and over the images in which it fires on a patch."""
    max_activation: float
    """Largest activation on any token of the data set."""
    entropy: float
    """Entropy in nats of the labels of the ten images of largest mean activation, weighted by it;
    -1 if unknown."""
    decoder_norm: float
    dead: bool
    rare: bool
    dense: bool
    histogram: list[int]
    """Number of images by maximum activation."""
    histogram_edges: list[float]
    """len(histogram) + 1 logarithmically spaced edges."""
    exemplars: dict[str, list[Exemplar]]
    """By level; no image twice."""
    statistics: dict[str, float]
    """Every statistic of the index by its name; NaN for unknown ones."""
    classes: list[ClassCount]
    """The classes with most tokens, falling."""
    neighbours: list[Neighbour]
    """Latents of nearest decoder direction."""
    cofiring: list[Neighbour]
    """Latents that are most often strong in the same images."""
    model_name: str = ""
    """The name that the index was built with; `name` is a person's own where there is one."""
    note: str = ""
    """What people noted of it."""
    pinned: bool = False


@dataclass(frozen=True)
class Hit:
    """A concept that a search found."""

    latent: int
    name: str
    score: float
    """The larger the better; what it measures depends on `by`. Scores of one search compare."""
    by: str
    """"name", "meaning", "image", "region", "decoder", "cofiring" or a statistic's name."""


def latent_number(latent: int, n: int) -> int:
    """A latent's number as it is used; IndexError if an index of n latents has no such latent."""
    if not 0 <= latent < n:
        raise IndexError(f"Latent {latent}: this index has latents 0 to {n - 1}.")
    return int(latent)


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

    def has_thumbnail(self, image_id: int) -> bool:
        """Whether the image is an exemplar and its picture was kept."""
        row = self._row.get(image_id)
        return row is not None and bool(np.diff(self._images["offsets"][row : row + 2])[0] > 0)

    def caption(self, image_id: int) -> str:
        """What the data set says of an exemplar image; KeyError for another."""
        return str(self._captions[self._row[image_id]])

    def _shown(self, latent: int, slots: range) -> list[Exemplar]:
        table, exemplars = self._table, []
        for slot in slots:
            number = int(table["image_ids"][latent, slot])
            if number < 0:
                break
            stop = self._ends[latent, slot]
            part = slice(stop - table["counts"][latent, slot], stop)
            exemplars.append(
                Exemplar(
                    image_id=number,
                    activation=float(table["activations"][latent, slot]),
                    label=self._captions[self._row[number]],
                    patches=table["patches"][part].tolist(),
                    values=table["values"][part].astype(np.float32).tolist(),
                )
            )
        return exemplars


class ClassTable:
    """PatchSAE's equation 5: tokens above tau by class and latent. Latents are taken as checked."""

    def __init__(self, content: IndexContent) -> None:
        self._table, self._images = content.classes, content.images
        self._names, self._d_sae = content.class_names, content.header["d_sae"]

    def largest(self, latent: int, k: int) -> list[ClassCount]:
        """The k classes with most tokens, falling; [] without labels."""
        part = slice(*self._table["starts"][latent : latent + 2])
        tokens, ids = self._table["tokens"][part], self._table["ids"][part]
        total = max(int(tokens.sum()), 1)
        return [
            ClassCount(self._names[ids[at]], int(tokens[at]), float(tokens[at] / total))
            for at in np.argsort(-tokens, kind="stable")[:k]
        ]

    def counts(self) -> Int64[np.ndarray, "n_classes d_sae"]:
        """All tokens, int64 (n_classes, d_sae)."""
        latent = np.repeat(np.arange(self._d_sae), np.diff(self._table["starts"]))
        counts = np.zeros((len(self._names), self._d_sae), np.int64)
        counts[self._table["ids"], latent] = self._table["tokens"]
        return counts

    def shares(self) -> Float64[np.ndarray, " n_classes"]:
        """Share of the labelled images that each class has, float64 (n_classes)."""
        images = self._table["images"]
        return images / max(int(images.sum()), 1)

    def of_images(self, image_ids: Int[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
        """Class numbers int32 of exemplar images, -1 where there is no image or no label."""
        known = self._images["image_ids"]
        if not len(known):
            return np.full(image_ids.shape, -1, np.int32)
        rows = np.minimum(np.searchsorted(known, np.maximum(image_ids, 0)), len(known) - 1)
        labels = self._images["labels"][rows]
        return np.where(known[rows] == image_ids, labels, -1).astype(np.int32)
