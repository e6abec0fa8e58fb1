"""What the Latents tab asks: all concepts at once, packed, and the search by meaning.

Knows: the index, what a browser may ask, and the packing that the tab's script reads. Does not know:
Gradio, how fit is computed.
"""

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Num

from sae.concepts.atlas import MAPS
from sae.concepts.statistics import table
from sae.lazy import lazy
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch, Json
from sae.views.code import to_base64

if TYPE_CHECKING:
    from sae.backbones import Backbone
    from sae.concepts.concept import Hit

MAX_FOUND = 60
MAX_TEXT = 200
"""Letters of a search that are read."""
N_NEAR = 6
"""Nearest concepts that the map joins with the one that is looked at."""
ADD_MAPS = "patchlens index --sae DIR --layout-only"
LACKING = {
    "meaning": "This index has no text tower, so nothing says what its concepts mean. Build it with one: "
    "patchlens index --sae DIR --data DIR --backbone ID",
    "cofiring": "This index saw no two concepts fire in the same pictures. Build it over more of them: "
    "patchlens index --sae DIR --data DIR",
    "decoder": "This index does not know which directions are alike. Build it again: "
    "patchlens index --sae DIR --data DIR",
}
"""Why an index cannot have a map, and what to do."""
UNKNOWN = 65535
"""Code of a figure that a concept does not have."""


class LatentsDesk:
    """Answers the Latents tab; immutable, shared by all visitors. ValueError without an index."""

    def __init__(self, backbone: "Backbone", concepts: ConceptsDesk, catalogue: Catalogue) -> None:
        if catalogue.index is None:
            raise ValueError("the Map tab shows an index, and this SAE has none")
        self.index, self.backbone = catalogue.index, backbone
        self.concepts, self.catalogue = concepts, catalogue
        self.by_meaning = self.index.searcher.has_text
        self.index.searcher.prepare()

    def offer(self, dispatch: Dispatch) -> None:
        """Answer `latents`, `near` and `search`."""
        dispatch.offer(model=False, latents=lambda _fields: self.packed, near=self.near)
        dispatch.offer(search=self.search)

    @lazy
    def packed(self) -> Json:
        """`{n, figures: {name: {codes, low, high, log}}, flags, names, order, maps, lacking}`, as JSON.

        Flags: 1 dead, 2 always on, 4 a name that is a guess. `order`: that of `NameSearch`.
        """
        index = self.index
        dead, dense = np.asarray(index.dead, np.uint8), self.catalogue.always_on.astype(np.uint8)
        guess = [self.catalogue.is_guess(latent) for latent in range(len(index.names))]
        scales = {one.short: one.log for one in table()}
        figures = {
            name: pack_figure(values, log=scales[name])
            for name, values in self.catalogue.figures.items()
        }
        return {
            "n": len(index.names),
            "figures": {name: figure for name, figure in figures.items() if figure is not None},
            "flags": to_base64(dead | dense << 1 | np.asarray(guess, np.uint8) << 2),
            "names": index.names,
            "order": to_base64(index.searcher.names.order),
            "maps": {by: self._map(by) for by in index.atlas.stored},
            "lacking": {by: self._why_not(by) for by in MAPS if by not in index.atlas.stored},
        }

    def _map(self, by: str) -> Json:
        """Places as pairs of 16 bits, and the groups that have a label: `[label, concepts, x, y]`."""
        groups = [group for group in self.index.atlas.groups(by) if group.label]
        return {
            "xy": to_base64(self.index.atlas.raw(by).xy.ravel()),
            "groups": [[g.label, g.n, round(g.x, 4), round(g.y, 4)] for g in groups],
        }

    def _why_not(self, by: str) -> str:
        if by not in self.index.atlas.possible:
            return LACKING[by]
        return f"This index holds no such map yet. Add it: {ADD_MAPS}"

    def near(self, fields: Json) -> Json:
        """`{near: [latent, …]}`: the nearest concepts of `{latent, by}` by what a map is made of."""
        latent, by = fields.get("latent"), fields.get("by")
        if not isinstance(latent, int) or not self.catalogue.known(latent):
            raise ValueError("There is no such concept.")
        if by not in MAPS:
            by = next(iter(self.index.atlas.possible), "decoder")
        return {"near": self.index.atlas.near(latent, str(by), N_NEAR)}

    def search(self, fields: Json) -> Json:
        """`{found: [[latent, score], …]}` for `{text}` or `{picture, patches}`; for a text also
        `unknown`, its words that the text tower does not know."""
        asked = str(fields.get("text") or "")[:MAX_TEXT]
        hits = self._like_picture(fields) if "picture" in fields else self._about(asked)
        answer: Json = {"found": [[hit.latent, round(hit.score, 4)] for hit in hits]}
        if "picture" not in fields:
            answer["unknown"] = self.index.searcher.unknown_words(asked, backbone=self.backbone)
        return answer

    def rows(self, text: str, k: float) -> list[Json]:
        """The k best concepts for a text, by name and meaning, as `/search` gives them."""
        if not isfinite(k):
            raise ValueError(f"k is the number of concepts, 1 to 100, got {k}")
        k = max(1, min(int(k), 100))
        hits = self.index.searcher.search(text, k, backbone=self.backbone)
        return [
            {"latent": h.latent, "name": h.name, "score": round(h.score, 4), "by": h.by}
            for h in hits
        ]

    def _about(self, text: str) -> "list[Hit]":
        return self.index.searcher.by_meaning(text, MAX_FOUND, backbone=self.backbone)

    def _like_picture(self, fields: Json) -> "list[Hit]":
        image, patches = self.concepts.picture(fields["picture"]), fields.get("patches")
        if patches is not None:
            n = self.concepts.limits.n_patches
            known = isinstance(patches, list) and len(patches) <= n
            if not known or not all(isinstance(p, int) and 0 <= p < n for p in patches):
                raise ValueError("These patches are not in the picture. Choose some and try again.")
        return self.index.searcher.like_image(
            image, MAX_FOUND, patches=patches, backbone=self.backbone
        )


def pack_figure(
    values: Num[np.ndarray, " d_sae"], *, log: bool = False
) -> dict[str, object] | None:
    """`values (n)` in 65,535 steps between their extremes; NaN is UNKNOWN. None if all are NaN."""
    values = np.asarray(values, np.float64)
    known = np.isfinite(values) & (values > 0) if log else np.isfinite(values)
    if not known.any():
        return None
    low, high = float(values[known].min()), float(values[known].max())
    scaled = np.log(values, where=known, out=np.zeros_like(values)) if log else values
    first, last = (np.log(low), np.log(high)) if log else (low, high)
    share = (scaled - first) / (last - first) if last > first else np.zeros_like(values)
    codes = np.where(known, np.round(np.where(known, share, 0) * (UNKNOWN - 1)), UNKNOWN)
    return {"codes": to_base64(codes.astype(np.uint16)), "low": low, "high": high, "log": log}
