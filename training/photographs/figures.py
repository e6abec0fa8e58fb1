"""Figures of the lens on photographs: classes found, names held up, one meaning a latent.

Knows arrays of what units do on photos, and the photos' labels, which serve for measuring alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.concepts.concept import GUESS
from sae.metrics.auroc import auroc
from sae.metrics.monosemanticity import MonosemanticityMeter
from sae.model import SparseAutoencoder
from training.photographs.names import (
    Judged,
    Named,
    fires_on,
    judge,
    shuffled,
    word_probabilities,
)

FOUND = 0.9
"""AUROC from which on a unit is said to find a class."""
HOLDS = 0.8
"""Balanced accuracy that names without a question mark should reach."""


def best_of_classes(
    chosen_on: tuple[Float[np.ndarray, "n units"], Int[np.ndarray, " n"]],
    measured_on: tuple[Float[np.ndarray, "m units"], Int[np.ndarray, " m"]],
    n_classes: int,
) -> tuple[Int[np.ndarray, " classes"], Float[np.ndarray, " classes"]]:
    """For every class the unit of the largest AUROC on the first photos, and its AUROC on the others."""
    classes = np.arange(n_classes)
    first, labels = chosen_on
    best = auroc(first, labels[:, None] == classes).argmax(0)
    second, labels = measured_on
    columns = auroc(second[:, best], labels[:, None] == classes)
    return best, columns[classes, classes]


def together(
    chosen_on: tuple[Float[np.ndarray, "n units"], Int[np.ndarray, " n"]],
    measured_on: tuple[Float[np.ndarray, "m units"], Int[np.ndarray, " m"]],
    scale: Float[np.ndarray, " units"],
    n_classes: int,
    n_units: int = 3,
) -> Float[np.ndarray, " classes"]:
    """For every class the AUROC, on the second photos, of the sum of the `n_units` units that are best on the
    first, each divided by its `scale`."""
    first, labels = chosen_on
    order = np.argsort(-auroc(first, labels[:, None] == np.arange(n_classes)), axis=0)[:n_units]
    second, labels = measured_on
    sums = (second[:, order] / scale[order]).sum(1)
    return np.array([auroc(sums[:, [c]], (labels == c)[:, None])[0, 0] for c in range(n_classes)])


def class_figures(scores: Float[np.ndarray, " classes"], names: Sequence[str]) -> dict[str, Any]:
    """Median, share found, and the classes that are not."""
    order = np.argsort(scores)
    return {
        "median_auroc": round(float(np.median(scores)), 4),
        "share_at_0.9": round(float((scores >= FOUND).mean()), 4),
        "below_0.9": {names[i]: round(float(scores[i]), 3) for i in order if scores[i] < FOUND},
    }


def name_figures(
    named: Named,
    judged: Judged,
    confidence: Float[np.ndarray, " d_sae"],
    firing: Float[np.ndarray, "n d_sae"],
    maximum: Float[np.ndarray, " d_sae"],
    said: Float[np.ndarray, "n classes"],
    classes: Sequence[str],
    wider: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Balanced accuracy of the names on photos that chose nothing, beside shuffled ones, by confidence.

    Only of latents that fire on enough of these photos.
    """
    probabilities = word_probabilities(said, classes, wider)
    fires = fires_on(firing, maximum)
    accuracy = judge(named.words, probabilities, fires, thresholds=judged.thresholds).accuracy
    other = shuffled(named.words, probabilities)
    chance = judge(other, probabilities, fires, thresholds=judged.thresholds).accuracy
    rows = {
        "all": np.ones(len(confidence), bool),
        "without a question mark": confidence >= GUESS,
        "with a question mark": confidence < GUESS,
        **{f"confidence {low} to {low + 0.1:.1f}": _between(confidence, low) for low in _LOWS},
    }
    return {name: _told(rows[name], accuracy, chance, named) for name in rows}


_LOWS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def _between(confidence: np.ndarray, low: float) -> np.ndarray:
    return (confidence >= low) & (confidence < (low + 0.1 if low < 0.9 else 2))


def _told(
    row: np.ndarray, accuracy: np.ndarray, chance: np.ndarray, named: Named
) -> dict[str, Any]:
    words = np.asarray([bool(word) for word in named.words])
    known = row & np.isfinite(accuracy)
    figures: dict[str, Any] = {"names": int((row & words).sum()), "measured": int(known.sum())}
    if known.any():
        figures["balanced_accuracy"] = round(float(accuracy[known].mean()), 4)
        figures["share_at_0.8"] = round(float((accuracy[known] >= HOLDS).mean()), 4)
        other = chance[known & np.isfinite(chance)]
        figures["shuffled"] = round(float(other.mean()), 4) if len(other) else None
    return figures


def meanings(
    firing: Mapping[str, Float[np.ndarray, "n units"]], embeddings: Float[Tensor, "n d"]
) -> dict[str, Any]:
    """MonoSemanticity of each kind of unit over n photos (of units that fire on ten or more), and chance."""
    found: dict[str, Any] = {}
    for name, values in firing.items():
        meter = MonosemanticityMeter(values.shape[1], embeddings.shape[1])
        meter.update(values, embeddings)
        found[name] = round(meter.summary(10).filtered.mean, 4)
        found["chance"] = round(meter.chance(), 4)
    return found


def random_decoder(
    sae: SparseAutoencoder, sample: Float[Tensor, "tokens d_in"], seed: int = 0
) -> SparseAutoencoder:
    """An SAE of the same form whose decoder is random unit directions, never trained, and whose encoder reads
    along them, centred on the sample's mean."""
    cfg = sae.cfg
    rows = torch.randn(cfg.d_sae, cfg.d_in, generator=torch.Generator().manual_seed(seed))
    rows = rows / rows.norm(dim=1, keepdim=True)
    other = SparseAutoencoder(cfg)
    with torch.no_grad():
        other.W_dec.copy_(rows)
        other.W_enc.copy_(rows.T)
        other.b_dec.copy_(sample.mean(0))
        other.b_enc.zero_()
    return other
