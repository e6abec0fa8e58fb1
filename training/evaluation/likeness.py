"""Scores of how alike the images are on which units fire, with intervals, and what else tells units apart.

Knows mean activations of units an image, `(images, units)`, dense of two signs or sparse, and a vector an
image. Knows nothing of where either came from. MonoSemanticity is `sae.metrics.monosemanticity`; here it is
also taken over images drawn with repetition, where pairs of an image with itself do not count.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy import sparse
from torch import Tensor

from sae.metrics.monosemanticity import MonosemanticityMeter

N_EXEMPLARS = 16


class Likeness(NamedTuple):
    """MonoSemanticity of all units."""

    scores: Float64[np.ndarray, " units"]
    """NaN for units that fire on fewer than two images."""
    mean: float
    spread: float
    """Standard deviation of the mean over draws of images and of units."""
    chance: float


def chance(vectors: Float[Tensor, "images d"]) -> float:
    """The mean cosine of two images."""
    units = torch.nn.functional.normalize(vectors.double(), dim=1)
    n = len(units)
    return (float(units.sum(0).square().sum()) - n) / (n * (n - 1))


def likeness(
    activations: Any, vectors: Float[Tensor, "images d"], *, draws: int, seed: int = 0
) -> Likeness:
    """MonoSemanticity of units `(images, units)` by image vectors, and how sure its mean is. Sparse units
    are taken to be 0 on some image, as their smallest activation."""
    meter = MonosemanticityMeter(activations.shape[1], vectors.shape[1])
    meter.update(activations, vectors)
    scores = meter.result().numpy()
    units = torch.nn.functional.normalize(vectors.double(), dim=1).numpy()
    if not sparse.issparse(activations):
        activations = activations - activations.min(0)
    weights, rng, means = activations.T, np.random.default_rng(seed), []
    squares = weights.multiply(weights) if sparse.issparse(weights) else weights**2
    n_units, n = weights.shape
    for _ in range(draws):
        times = rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)
        total, own = weights @ times, squares @ times**2
        together = np.square(weights @ (units * times[:, None])).sum(1) - own
        pairs = total**2 - own
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = np.where(pairs > 1e-12 * total**2, together / pairs, np.nan)
        means.append(np.nanmean(drawn[rng.integers(0, n_units, n_units)]))
    spread = float(np.std(means, ddof=1)) if draws > 1 else 0.0
    return Likeness(scores, float(np.nanmean(scores)), spread, chance(vectors))


def held_out_likeness(activations: Any, vectors: Float[Tensor, "images d"]) -> float:
    """How well a unit's activation on an image follows from the image's likeness to others.

    The unit's strongest N_EXEMPLARS images of the first half are averaged; the score is the correlation, over
    the second half, of its activation with the cosine to that mean. Mean over units that fire on so many.
    """
    units = torch.nn.functional.normalize(vectors.float(), dim=1).numpy()
    middle = len(units) // 2
    dense = activations.toarray() if sparse.issparse(activations) else np.asarray(activations)
    first, second = dense[:middle].astype(np.float32), dense[middle:].astype(np.float32)
    often = (first > first.min(0)).sum(0) >= N_EXEMPLARS
    first, second = first[:, often], second[:, often]
    chosen = np.zeros(first.shape, np.float32)
    top = np.argpartition(-first, N_EXEMPLARS - 1, axis=0)[:N_EXEMPLARS]
    np.put_along_axis(chosen, top, np.float32(1 / N_EXEMPLARS), axis=0)
    cosines = units[middle:] @ (chosen.T @ units[:middle]).T
    cosines, second = cosines - cosines.mean(0), second - second.mean(0)
    sizes = np.linalg.norm(cosines, axis=0) * np.linalg.norm(second, axis=0)
    usable = sizes > 0
    return float(((cosines * second).sum(0)[usable] / sizes[usable]).mean())


def lift(found: Likeness, codes: sparse.csr_array, x: Float[Tensor, "tokens d_in"]) -> float:
    """(MS - chance) / (1 - chance) summed over units, each weighted by the share of the variance of `x`
    that the best linear decoder of codes `(tokens, units)` explains through it."""
    z, target = sparse.csr_array(codes, dtype=np.float64), x.double().numpy()
    away, mean = target - target.mean(0), np.asarray(z.mean(0)).ravel()
    cross = (z.T @ away) / len(away)
    gram = (z.T @ z).toarray() / len(away) - np.outer(mean, mean)
    gram[np.diag_indices_from(gram)] += 1e-4 * max(float(np.trace(gram)) / len(gram), 1e-12)
    decoder = np.linalg.solve(gram, cross)
    explained = (decoder * cross).sum(1) / (np.square(away).sum() / len(away))
    above = (np.nan_to_num(found.scores, nan=found.chance) - found.chance) / (1 - found.chance)
    return float((explained * above).sum())
