"""Maps of an index's concepts: which maps there are, where each concept lies, and what its groups are called.

Knows `IndexContent`; how places are found is the work of `sae.concepts.layout`. A group is called after names
that its own concepts have, and after nothing where these do not agree. A map that an index does not hold is
made when it is asked for, which takes seconds to minutes; `patchlens index --layout-only` stores all of them.
"""

from collections import Counter
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int16

from sae.concepts.concept import GUESS
from sae.concepts.content import NOWHERE, IndexContent
from sae.concepts.layout import MOST, Places, places_of
from sae.concepts.nearest import nearest_rows

MAPS = ("meaning", "cofiring", "decoder")
"""What lies close together: concepts whose pictures mean the same to the text tower; that fire in the same
pictures; whose directions are alike."""
AGREE = 0.5
"""Share of a group's sure names that the words it is called after have at least."""
MIN_NAMED, MIN_SHARE = 4, 0.2
"""Concepts that carry these words: so many at least, and this share of the group."""
MOST_WORDS = 2
_N_NEIGHBOURS = 12


class Group(NamedTuple):
    """A group of concepts on a map."""

    label: str
    """What most of its sure names say; "" where they do not agree."""
    n: int
    """Concepts in it."""
    x: float
    y: float
    """Its middle."""


class Atlas:
    """The maps of an index."""

    def __init__(self, content: IndexContent, dead: Bool[np.ndarray, " d_sae"]) -> None:
        self._content, self._dead, self._lock = content, dead, Lock()
        layout = content.layout
        self.stored = tuple(by for by in MAPS if f"{by}_xy" in layout)
        """Maps that the index holds."""
        self._made = {by: Places(layout[f"{by}_xy"], layout[f"{by}_groups"]) for by in self.stored}

    @property
    def possible(self) -> tuple[str, ...]:
        """Maps that it can have: "meaning" takes a text tower, "cofiring" concepts that fired together."""
        there = {
            "meaning": bool(self._content.embeddings["latents"].any()),
            "cofiring": bool((self._content.neighbours["cofiring_ids"] >= 0).any()),
            "decoder": bool((self._content.neighbours["decoder_ids"] >= 0).any()),
        }
        return tuple(by for by in MAPS if there[by])

    def places(self, by: str = MAPS[0]) -> Float32[np.ndarray, "d_sae 2"]:
        """Where each concept lies, 0 to 1 from the left and from the top; NaN for nowhere."""
        xy = self.raw(by).xy
        return np.where(xy == NOWHERE, np.nan, xy / np.float32(MOST)).astype(np.float32)

    def groups(self, by: str = MAPS[0]) -> list[Group]:
        """All groups of a map by their number."""
        xy, groups = self.places(by), self.raw(by).groups
        members = [np.flatnonzero(groups == n) for n in range(int(groups.max(initial=-1)) + 1)]
        middles = [np.median(xy[group], axis=0) for group in members]
        return [
            Group(self._label(group), len(group), float(x), float(y))
            for group, (x, y) in zip(members, middles, strict=True)
        ]

    def group_of(self, by: str = MAPS[0]) -> Int16[np.ndarray, " d_sae"]:
        """The number of each concept's group, -1 for none."""
        return self.raw(by).groups

    def near(self, latent: int, by: str, k: int) -> list[int]:
        """The k nearest latents by what a map is made of, nearest first; dead ones are left out."""
        if by != "meaning":
            ids = self._content.neighbours[f"{by}_ids"][latent]
            return [int(one) for one in ids if one >= 0 and not self._dead[one]][:k]
        features = self._content.embeddings["latents"]
        if not features[latent].any():
            return []
        cosines = features.astype(np.float32) @ features[latent].astype(np.float32)
        cosines[self._dead | ~features.any(axis=1)] = -np.inf
        cosines[latent] = -np.inf
        nearest = np.argsort(-cosines, kind="stable")[:k]
        return [int(one) for one in nearest if np.isfinite(cosines[one])]

    def table(self) -> dict[str, np.ndarray]:
        """All possible maps as an index stores them, by "NAME_xy" and "NAME_groups"."""
        made = {by: self.raw(by) for by in self.possible}
        return {f"{by}_xy": places.xy for by, places in made.items()} | {
            f"{by}_groups": places.groups for by, places in made.items()
        }

    def raw(self, by: str) -> Places:
        """A map in whole numbers; ValueError if there is none of this name, or the index has not what it
        is made of."""
        if by not in MAPS or by not in (*self.stored, *self.possible):
            raise ValueError(f"This index has maps by {', '.join(self.possible)}; got {by!r}.")
        with self._lock:
            if by not in self._made:
                self._made[by] = places_of(*self._neighbours(by), ~self._dead)
            return self._made[by]

    def _neighbours(self, by: str) -> tuple[np.ndarray, np.ndarray]:
        stored = self._content.neighbours
        if by == "decoder":
            return stored["decoder_ids"], stored["decoder_cosines"]
        if by == "cofiring":
            return stored["cofiring_ids"], stored["cofiring_scores"]
        features = self._content.embeddings["latents"].astype(np.float32)
        there = np.flatnonzero(np.abs(features).sum(axis=1) > 0)
        ids = np.full((len(features), _N_NEIGHBOURS), -1, np.int32)
        scores = np.zeros(ids.shape, np.float32)
        near, scores[there] = nearest_rows(torch.from_numpy(features[there]), _N_NEIGHBOURS)
        ids[there] = np.where(near >= 0, there[near], -1)
        return ids, scores

    def _label(self, group: np.ndarray) -> str:
        names = self._content.names
        counts = Counter(
            names["names"][one]
            for one in group
            if names["names"][one] and names["confidences"][one] >= GUESS
        )
        words, carriers = list[str](), 0
        for word, n in counts.most_common(MOST_WORDS):
            words, carriers = [*words, word], carriers + n
            if carriers >= AGREE * counts.total():
                break
        enough = carriers >= max(MIN_NAMED, MIN_SHARE * len(group), AGREE * counts.total())
        return ", ".join(word for word in words if not _narrows(word, words)) if enough else ""


def _narrows(word: str, words: list[str]) -> bool:
    """Whether a word is another one with something before it, as "road vehicle" is a "vehicle"."""
    return any(word.endswith(f" {other}") for other in words)
