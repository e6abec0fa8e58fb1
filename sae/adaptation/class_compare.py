"""One class of a classifier against another on one image, concept by concept, exactly.

    comparison = ClassComparison(backbone, sae, index.names)
    found = comparison.explain(image, ("dalmatian", "hyena"))
    comparison.switched_off(found, [12, 407])

Knows classifiers that are linear in the SAE's layer (`sae.adaptation.class_shares`); switching concepts off
needs no run of the model. One ClassComparison serves many threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from sae.adaptation.attribution import Attribution
from sae.adaptation.class_shares import class_shares
from sae.adaptation.explanation import Prediction, ranked
from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.model import SparseAutoencoder
from sae.sparse import SparseLatents

MAX_PREDICTIONS = 8
"""Classes of a prediction that are told, the likeliest first."""


@dataclass(frozen=True)
class ClassConcept:
    """A concept in the margin of two classes."""

    latent: int
    name: str
    share: float
    """What it adds to logit[first] - logit[second]."""
    activation: float
    """Its largest activation on any place of the picture."""


@dataclass(frozen=True)
class ClassExplanation:
    """A margin: start + sum of shares + error = score, to rounding."""

    classes: tuple[str, str]
    logits: Float32[Tensor, " all_classes"]
    attribution: Attribution
    concepts: list[ClassConcept]
    """Every active concept, largest absolute share first."""
    codes: SparseLatents
    """Values and latents (places, n) of the picture."""
    means: Float[Tensor, " d_sae"]
    """Of each latent, the mean over tokens of what decoding multiplies its row with; float64."""
    grid: tuple[int, int]
    class_names: tuple[str, ...]

    def predictions(self, top: int = MAX_PREDICTIONS) -> list[Prediction]:
        """Classes by probability, the likeliest first."""
        return ranked(self.class_names, self.logits, top)

    def maps(self, latent: int) -> Float32[np.ndarray, "rows columns"]:
        """Activations of one concept over the places, float32."""
        values, indices = self.codes
        on = torch.where(indices == latent, values, 0).sum(-1)
        return on.view(self.grid).float().cpu().numpy()

    def to_json(self, top: int | None = None) -> dict[str, Any]:
        """As `Explanation.to_json`, with one head: start + contributions + rest + residual = margin."""
        rows = self.concepts if top is None else self.concepts[:top]
        found = self.attribution
        shown = sum(row.share for row in rows)
        head = {
            "predictions": [
                {"class": p.class_name, "probability": p.probability, "logit": p.logit}
                for p in self.predictions()
            ],
            "margin": found.score,
            "start": found.start,
            "contributions": [
                {"latent": row.latent, "name": row.name, "share": row.share} for row in rows
            ],
            "rest": found.explained - shown if len(rows) < len(self.concepts) else 0.0,
            "residual": found.residual,
            "residual_parts": {"error": found.error, "gap": found.gap},
            "exact": found.exact,
        }
        first, second = self.classes
        return {
            "question": f"how much more the model says {first} than {second}",
            "classes": [first, second],
            "heads": [head],
            "concepts": [
                {
                    "latent": row.latent,
                    "name": row.name,
                    "shares": [row.share],
                    "activations": [row.activation],
                    "used_by": "both",
                }
                for row in rows
            ],
        }


@dataclass(frozen=True)
class ClassSwitched:
    """The classifier with some concepts off."""

    predictions: list[Prediction]
    score: float
    """The margin, recomputed from the classes' logits."""


class ClassComparison:
    """A backbone whose classifier is linear in the SAE's layer; `names` names the latents."""

    def __init__(
        self, backbone: Backbone, sae: SparseAutoencoder, names: Sequence[str] | None = None
    ) -> None:
        """Raises ValueError where the classifier is not linear in the layer; see `fits`."""
        if not self.fits(backbone, sae):
            raise ValueError(
                f"the classifier of {backbone.id} is not linear in layer {sae.cfg.backbone.layer}; use an "
                "SAE of the last map of a network that averages it, such as EfficientNet's or ResNet's"
            )
        self.backbone, self.sae, self.names = backbone.at(sae.cfg.backbone.layer), sae, names
        readout = backbone.class_readout(sae.cfg.backbone.layer)
        assert readout is not None, "it fits"
        self._weights, self._bias = readout.weights.double(), readout.bias.double()
        self.view = TokenView(self.backbone, sae.cfg.backbone.tokens)

    @staticmethod
    def fits(backbone: Backbone, sae: SparseAutoencoder) -> bool:
        """Whether the backbone has a classifier that is linear in the SAE's layer."""
        return bool(backbone.classes) and (
            backbone.class_readout(sae.cfg.backbone.layer) is not None
        )

    @torch.no_grad()
    def explain(
        self, image: Image.Image, classes: tuple[str, str] | None = None
    ) -> ClassExplanation:
        """Every concept's share in the margin of two classes: the two likeliest, if none are given.

        ValueError for an unknown class and for one against itself.
        """
        hidden = self.backbone.activations([image], self.sae.cfg.backbone.layer)
        logits = (hidden[0].double().mean(0) @ self._weights.T + self._bias).float().cpu()
        names = tuple(self.backbone.classes)
        if classes is None:
            best = logits.topk(2).indices.tolist()
            classes = (names[best[0]], names[best[1]])
        if classes[0] == classes[1]:
            raise ValueError(f"the margin of {classes[0]!r} and itself is 0; give two classes")
        found = class_shares(self.backbone, self.sae, image, *classes, hidden=hidden)
        x = self.view.read(hidden)[0]
        codes = self.sae.encode_sparse(x)
        flat, values = codes.indices.flatten(), codes.values.double()
        none = values.new_zeros(self.sae.cfg.d_sae)
        peaks = none.scatter_reduce(0, flat, values.flatten(), "amax")
        scaled = values * self.sae.token_scale(x) / hidden.shape[1]
        concepts = [
            ClassConcept(n, self.names[n] if self.names is not None else "", share, float(peaks[n]))
            for n, share in zip(found.latents.tolist(), found.shares.tolist(), strict=True)
        ]
        return ClassExplanation(
            classes,
            logits,
            found,
            concepts,
            codes,
            none.index_add(0, flat, scaled.flatten()),
            self.view.patch_grid,
            names,
        )

    @torch.no_grad()
    def switched_off(self, explanation: ClassExplanation, off: Sequence[int]) -> ClassSwitched:
        """The classifier again with the concepts `off` switched off everywhere; the model is not run."""
        d_sae = self.sae.cfg.d_sae
        for latent in off:
            if not 0 <= latent < d_sae:
                raise ValueError(f"there is no latent {latent}; this SAE has 0 to {d_sae - 1}")
        gone = list(off)
        moved = explanation.means[gone] @ self.sae.W_dec[gone].double() @ self._weights.T
        logits = explanation.logits - moved.float().cpu()
        first, second = (explanation.class_names.index(name) for name in explanation.classes)
        predictions = ranked(explanation.class_names, logits, MAX_PREDICTIONS)
        return ClassSwitched(predictions, float(logits[first] - logits[second]))
