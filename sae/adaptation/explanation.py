"""What one image's comparison found: plain numbers, ready for a page or JSON.

Knows dataclasses; computes nothing but sums and orders. `sae.adaptation.compare` fills them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from sae.adaptation.attribution import Attribution
from sae.adaptation.classifier import Classifier
from sae.adaptation.lens import HookedActivations
from sae.backbones.tokens import TokenView
from sae.sparse import SparseLatents

USES = 0.05
"""A head uses a concept whose share is at least this part of its largest share."""


@dataclass(frozen=True)
class Prediction:
    """A class with its probability and logit."""

    class_name: str
    probability: float
    logit: float


@dataclass(frozen=True)
class Side:
    """What one head makes of the image."""

    classifier: Classifier
    reading: HookedActivations
    logits: Float[Tensor, " classes"]
    """(C,)."""
    attribution: Attribution

    def predictions(self, top: int | None = None) -> list[Prediction]:
        """Classes by probability, the likeliest first."""
        return ranked(self.classifier.class_names, self.logits, top)

    def used(self) -> set[int]:
        """Latents whose share is at least USES of the largest one."""
        size = self.attribution.shares.abs()
        if not len(size):
            return set()
        return set(self.attribution.latents[size >= USES * size.max()].tolist())


@dataclass(frozen=True)
class ConceptRow:
    """A concept in both heads."""

    latent: int
    name: str
    shares: tuple[float, float]
    """Its share in the first and the second head's score; 0 where it is not active."""
    activations: tuple[float, float]
    """Its largest activation on any patch for each head's vision tower; on CLS where that is all
    the SAE reads."""
    used_by: str
    """"both", "first", "second", or "neither" (active, but hardly in the score)."""


@dataclass(frozen=True)
class Explanation:
    """Two heads on one image. Of each side, start + sum of shares + residual = score, to rounding."""

    question: str
    """In words: what the score measures."""
    classes: tuple[str, str] | None
    """The margin is logit[first] - logit[second]; None where the score is a match with words."""
    sides: tuple[Side, Side]
    concepts: list[ConceptRow]
    """Every active concept, by the larger absolute share of its two."""
    view: TokenView
    """Which tokens the SAE reads, and where they lie."""
    direction: Float[Tensor, " d_proj"] | None = None
    """(d_proj): what is measured in unit features where the score is a match with words."""

    def patch_codes(self, side: int) -> SparseLatents:
        """Values and latents (patches, n) of one side, without prompts; without CLS, unless it is all
        that the SAE reads."""
        values, indices = self.sides[side].reading.latents
        part = self.view.patches if self.view.reads_patches else slice(None)
        return SparseLatents(values[0, part], indices[0, part])

    def maps(self, latent: int) -> Float32[Tensor, "2 rows columns"]:
        """Activations of one concept over the patches in both heads: float32 (2, rows, columns).

        Draw both on one scale, from 0 to their common maximum. An SAE that reads CLS alone says
        nothing of places: its maps are 0 everywhere.
        """
        maps = torch.zeros(2, *self.view.patch_grid)
        for side in (0, 1) if self.view.reads_patches else ():
            values, indices = self.patch_codes(side)
            on = torch.where(indices == latent, values, 0).sum(-1)
            maps[side] = on.view(self.view.patch_grid)
        return maps

    def changed(self, used_by: str) -> list[ConceptRow]:
        """The concepts that "both", only the "first" or only the "second" head uses."""
        return [row for row in self.concepts if row.used_by == used_by]

    def to_json(self, top: int | None = None) -> dict[str, Any]:
        """The answer of /compare. Of each head, start + contributions + rest + residual = margin.

        `start` is what the head gives before any concept. `rest` is what concepts after the first
        `top` add; with top=None all are listed and rest is 0, so start + contributions + residual =
        margin.
        """
        rows = self.concepts if top is None else self.concepts[:top]
        return {
            "question": self.question,
            "classes": None if self.classes is None else list(self.classes),
            "heads": [self._side_json(number, rows) for number in (0, 1)],
            "concepts": [
                {
                    "latent": row.latent,
                    "name": row.name,
                    "shares": list(row.shares),
                    "activations": list(row.activations),
                    "used_by": row.used_by,
                }
                for row in rows
            ],
        }

    def _side_json(self, number: int, rows: Sequence[ConceptRow]) -> dict[str, Any]:
        side = self.sides[number]
        attribution = side.attribution
        listed = [row for row in rows if row.shares[number] != 0]
        shown = sum(row.shares[number] for row in listed)
        return {
            "head": side.classifier.name,
            "predictions": [
                {"class": p.class_name, "probability": p.probability, "logit": p.logit}
                for p in side.predictions()
            ],
            "margin": attribution.score,
            "start": attribution.start,
            "contributions": [
                {"latent": row.latent, "name": row.name, "share": row.shares[number]}
                for row in listed
            ],
            "rest": attribution.explained - shown if len(rows) < len(self.concepts) else 0.0,
            "residual": attribution.residual,
            "residual_parts": {"error": attribution.error, "gap": attribution.gap},
            "exact": attribution.exact,
        }


def ranked(
    class_names: Sequence[str], logits: Float[Tensor, " classes"], top: int | None = None
) -> list[Prediction]:
    """Predictions from logits (C,), the likeliest first."""
    probabilities = logits.softmax(-1)
    order = logits.argsort(descending=True, stable=True)[: top or len(class_names)]
    return [
        Prediction(class_names[i], float(probabilities[i]), float(logits[i]))
        for i in order.tolist()
    ]
