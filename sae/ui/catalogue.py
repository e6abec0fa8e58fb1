"""What is known of each concept, as JSON for the screen: names, cards, icons.

Knows: ConceptIndex and how its fields are called on screen. Does not know: pictures of visitors,
models, Gradio. An SAE without an index works too: its concepts then have numbers only.
"""

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sae.concepts.concept import GUESS
from sae.concepts.notes import OWN
from sae.concepts.statistics import Statistic, table
from sae.errors import ImageError
from sae.images import open_thumbnail
from sae.views.code import Code, to_base64
from sae.views.pictures import concept_icon, data_uri
from sae.views.ranking import leading

if TYPE_CHECKING:
    from sae.concepts.concept import Concept
    from sae.concepts.index import ConceptIndex

log = logging.getLogger(__name__)
MAX_ICONS = 256
"""Icons given for one request."""
EXEMPLARS_PER_ROW = 6
ALWAYS = 0.9
"""Share of the index's pictures from which a concept counts as always on, whatever its patches."""
PER_TENTH = 6
"""Exemplars shown of each tenth of the images in which a concept fires."""


class Catalogue:
    """Answers questions about latents; immutable, shared by all visitors."""

    def __init__(self, index: "ConceptIndex | None", d_sae: int, grid: tuple[int, int]) -> None:
        if index is not None and len(index.names) != d_sae:
            raise ValueError(
                f"the concept index and the SAE do not fit: the index describes "
                f"{len(index.names)} latents, the SAE has {d_sae}; build the index again for it"
            )
        self.index = index
        self.d_sae = d_sae
        self.grid = grid
        self.always_on = np.zeros(d_sae, bool)
        """Concepts that fire on most tokens, or in nearly every picture: bool (d_sae)."""
        if index is not None:
            self.always_on = np.asarray(index.dense) | (np.asarray(index.frequency) >= ALWAYS)
        self.figures: dict[str, np.ndarray] = {}
        """Every number of the index that is shown, by its short name: float64 (d_sae), NaN for unknown."""
        if index is not None:
            self.grid = (int(index.grid[0]), int(index.grid[1]))
            for one in table():
                values = one.values(index) if one.column or one.colour else None
                if values is not None:
                    self.figures[one.short] = values
        self._icon = lru_cache(maxsize=4096)(self._make_icon)

    def describe(self, code: Code) -> dict[str, object]:
        """Names, data-set maxima and always-on flags of a code's latents, slot by slot."""
        if self.index is None:
            return {"names": [], "dataset_max": None, "dense": []}
        ids = code.latents.astype(np.int64)
        dataset_max = np.asarray(self.index.max_activation, np.float32)[ids]
        return {
            "names": [self.label(i) for i in ids],
            "dataset_max": to_base64(dataset_max),
            "dense": np.flatnonzero(self.always_on[ids]).tolist(),
        }

    def leading(self, code: Code, n_patches: int) -> list[int]:
        """Slots of the concepts that the screen shows of a whole picture: those with a sure name
        first, then guesses, then those without a name; none that is always on."""
        ids = code.latents.astype(np.int64)
        if self.index is None:
            every = np.ones(len(ids), bool)
            return leading(code, n_patches, code.scale, [every], [""] * len(ids))
        names = [self.name(int(i)) for i in ids]
        own = ~self.always_on[ids]
        named = own & np.array([bool(name) for name in names], bool)
        sure = named & (np.asarray(self.index.name_confidences)[ids] >= GUESS)
        top = np.asarray(self.index.max_activation, np.float32)[ids]
        return leading(code, n_patches, top, [sure, named, own], names)

    def name(self, latent: int) -> str:
        """The concept's name, or `""` where it has none."""
        return self.index.names[latent] if self.index is not None else ""

    def label(self, latent: int) -> str:
        """The name as it stands on the screen: a guess carries a question mark."""
        return self.name(latent) + "?" * self.is_guess(latent)

    def is_guess(self, latent: int) -> bool:
        """Whether the concept has a name of little confidence."""
        if self.index is None or not self.name(latent):
            return False
        return bool(self.index.name_confidences[latent] < GUESS)

    def has_picture(self, image_id: object) -> bool:
        """Whether the index keeps a picture of this number, an exemplar's."""
        if self.index is None or not isinstance(image_id, int) or isinstance(image_id, bool):
            return False
        return self.index.has_thumbnail(image_id)

    def picture(self, image_id: object) -> tuple[Image.Image, str]:
        """The index's own copy of an exemplar, small as it is, and what it is called."""
        if self.index is None or not isinstance(image_id, int) or not self.has_picture(image_id):
            raise ImageError("The concept index keeps no copy of this picture. Choose another one.")
        copy = open_thumbnail(self.index.thumbnail(image_id))
        return copy, self.index.caption(image_id) or "A picture of the concept index"

    def frequency(self, latent: int) -> float | None:
        """Share of the index's images in which the concept fires; None without an index."""
        return _finite(float(self.index.frequency[latent])) if self.index is not None else None

    def maximum(self, latent: int) -> float | None:
        """The largest activation over the index's data; None without an index."""
        return _finite(float(self.index.max_activation[latent])) if self.index is not None else None

    def known(self, latent: object) -> bool:
        """Whether there is such a latent."""
        return self._latent(latent) is not None

    def statistics(self) -> list[dict[str, object]]:
        """What the page says of each of `figures`, in their order: the cells of the table of statistics."""
        n_images = f"{self.index.n_images:,}" if self.index is not None else ""
        return [
            {
                "name": one.short,
                "label": one.label,
                "explanation": one.explanation.replace("{n_images}", n_images) + self._beside(one),
                "column": one.column,
                "colour": one.colour,
                "format": one.format,
                "rising": one.rising,
                "required": one.required,
            }
            for one in table()
            if one.short in self.figures
        ]

    def _beside(self, one: Statistic) -> str:
        """What a score of likeness has to be held against, on average over the same pictures."""
        if self.index is None or one.name != "monosemanticity":
            return ""
        rows = dict(self.index.monosemanticity_beside)
        if self.index.neuron_monosemanticity:
            rows["raw neurons"] = self.index.neuron_monosemanticity
        told = ", ".join(f"{name} {row['mean']:.2f}" for name, row in rows.items())
        return f" (on average: {told})" if told else ""

    def matching(self, text: str, n: int) -> list[int]:
        """At most `n` living latents whose name or number fits `text`, best first."""
        if self.index is None:
            number = text.strip().removeprefix("#")
            return [int(number)] if number.isdecimal() and int(number) < self.d_sae else []
        hits = self.index.searcher.by_name(text, self.d_sae) if text.strip() else []
        return [hit.latent for hit in hits if not self.index.dead[hit.latent]][:n]

    def card(self, latent: object) -> dict[str, object]:
        """Everything the concept card shows; ValueError for what is no latent."""
        number = self._latent(latent)
        if number is None:
            raise ValueError(f"there is no such concept: numbers go from 0 to {self.d_sae - 1}")
        if self.index is None:
            return {"latent": number, "name": "", "figures": None, "exemplars": {}, "images": {}}
        concept = self.index.concept(number)
        tenths = self.index.deciles(number)
        levels = {"top": concept.exemplars["top"]}
        levels |= {f"tenth{i}": rows[:PER_TENTH] for i, rows in enumerate(tenths)}
        exemplars, images = self._exemplars(levels)
        return {
            "latent": number,
            "name": self.label(number),
            "name_source": concept.name_source,
            "name_score": None if concept.name_source == OWN else _finite(concept.name_score),
            "model_name": concept.model_name if concept.name_source == OWN else "",
            "note": concept.note,
            "doubts": self._doubts(concept),
            "dead": bool(concept.dead),
            "rare": bool(concept.rare),
            "dense": bool(self.always_on[number]),
            "figures": {name: _finite(values[number]) for name, values in self.figures.items()},
            "classes": [[c.label, _finite(c.share)] for c in concept.classes[:6]],
            "neighbours": self._related(concept.neighbours),
            "cofiring": self._related(concept.cofiring),
            "histogram": {
                "counts": [int(n) for n in concept.histogram],
                "edges": [float(e) for e in concept.histogram_edges],
            },
            "n_images": int(self.index.n_images),
            "grid": list(self.grid),
            "exemplars": exemplars,
            "images": images,
        }

    def _doubts(self, concept: "Concept") -> list[str]:
        """What speaks against trusting a living concept."""
        if concept.dead:
            return []
        doubts = {
            "it fired on very few pictures, so its examples may mislead": concept.rare,
            "the name is a guess": self.is_guess(concept.latent),
        }
        for one in table():
            if one.doubt is not None and one.short in self.figures:
                value = self.figures[one.short][concept.latent]
                doubts[one.doubt.words] = value > one.doubt.above or value < one.doubt.below
        return [words for words, holds in doubts.items() if holds]

    def icons(self, latents: object) -> dict[str, str]:
        """`{latent: data URI}` for a list of latents; what has no exemplar is left out."""
        asked = latents if isinstance(latents, list) else [latents]
        numbers = (self._latent(one) for one in asked[:MAX_ICONS])
        icons = {n: self._icon(n) for n in numbers if n is not None}
        return {str(n): icon for n, icon in icons.items() if icon}

    def _make_icon(self, latent: int) -> str:
        if self.index is None:
            return ""
        top = self.index.concept(latent).exemplars.get("top", [])
        if not top:
            return ""
        picture = self.index.thumbnail(top[0].image_id)
        best = None  # it fires in the CLS token only
        if top[0].patches:
            best = int(top[0].patches[int(np.argmax(top[0].values))])
        try:
            return data_uri(concept_icon(picture, best, self.grid), "webp")
        except ImageError as error:
            log.warning("no icon for latent %d: %s", latent, error)
            return ""

    def _related(self, neighbours: list) -> list[list[object]]:
        return [[n.latent, self.label(n.latent), _finite(n.score)] for n in neighbours[:8]]

    def _exemplars(self, levels: dict[str, list]) -> tuple[dict[str, list], dict[str, str]]:
        index = self.index
        shown: dict[str, list] = {}
        images: dict[str, str] = {}
        for level, exemplars in levels.items():
            rows = exemplars[:EXEMPLARS_PER_ROW]
            shown[level] = [
                {
                    "image": str(e.image_id),
                    "label": e.label,
                    "activation": _finite(e.activation),
                    "kept": self.has_picture(int(e.image_id)),
                    "patches": [int(p) for p in e.patches],
                    "values": [float(v) for v in e.values],
                }
                for e in rows
            ]
            if index is not None:
                for e in rows:
                    images[str(e.image_id)] = data_uri(index.thumbnail(e.image_id), "webp")
        return shown, images

    def _latent(self, value: Any) -> int | None:
        ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < self.d_sae
        return int(value) if ok else None


def _finite(value: float) -> float | None:
    """A JSON number, or None for what JSON has no number for."""
    return float(value) if np.isfinite(value) else None
