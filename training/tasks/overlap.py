"""How often each concept fires in each class, and how two models differ in that.

Knows counts; knows nothing of images or masks. PatchSAE, equations 4 and 5: with tau = 0.2, count
the tokens of each image on which a latent is above tau, and add the images of a class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae.adaptation.lens import HookedActivations

TAU = 0.2
UPPER_RANK, LOWER_RANK = 50, 100


def image_counts(reading: HookedActivations, d_sae: int, tau: float = TAU) -> Tensor:
    """a_i[s]: int32 (B, d_sae), the tokens of each image on which each latent is above tau."""
    values, indices = reading.latents
    fires = (values > tau).to(torch.int32).flatten(1)
    out = fires.new_zeros(len(values), d_sae)
    return out.scatter_add_(1, indices.flatten(1), fires)


def add_class_counts(
    counts: Tensor, reading: HookedActivations, labels: Tensor, tau: float = TAU
) -> None:
    """Add images with `labels` (B,) to a_c[s], int64 (C, d_sae), in place."""
    counts.index_add_(0, labels, image_counts(reading, counts.shape[1], tau).to(counts.dtype))


class Overlap(NamedTuple):
    """Mean number of latents a class in each group, as in PatchSAE's Table 1."""

    high: float
    """Above the upper bound in both models."""
    high_to_low: float
    """Above the upper bound in the first model, below the lower bound in the second."""
    low_to_high: float
    """Below the lower bound in the first model, above the upper bound in the second."""


def overlap(
    first: Tensor, second: Tensor, upper_rank: int = UPPER_RANK, lower_rank: int = LOWER_RANK
) -> Overlap:
    """The groups from two models' class-level counts (C, d_sae).

    A class's upper and lower bounds are the 50th and 100th largest of both models' counts taken
    together ("the union top-50 and top-100"), so that some 25 latents (ties add a few) are high in
    both where the models agree. The paper has no code for this; its levels may be of another reading.
    """
    pooled = torch.cat([first, second], dim=1).sort(dim=1, descending=True).values
    upper = pooled[:, min(upper_rank, pooled.shape[1]) - 1].clamp(min=1)[:, None]
    lower = pooled[:, min(lower_rank, pooled.shape[1]) - 1][:, None].clamp(min=1)
    groups = (
        (first >= upper) & (second >= upper),
        (first >= upper) & (second < lower),
        (first < lower) & (second >= upper),
    )
    return Overlap(*(round(float(group.sum(1).double().mean()), 4) for group in groups))


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's r of dataset-level counts a_D[s] of two models, over latents that either fires.

    0.0 where it is not defined (fewer than two latents, or constant counts).
    """
    totals = torch.stack([first.sum(0), second.sum(0)]).double()
    totals = totals[:, (totals > 0).any(0)]
    if totals.shape[1] < 2 or (totals.std(1) == 0).any():
        return 0.0
    return float(torch.corrcoef(totals)[0, 1])


def scatter_points(
    first: Tensor, second: Tensor, class_names: Sequence[str], top: int = 30
) -> list[list[int]]:
    """[class number, latent, count in first, count in second], the largest count first.

    The `top` most frequent latents of each class in either model, whether they differ or not.
    """
    if len(class_names) != len(first):
        raise ValueError(f"{len(first)} rows of counts, but {len(class_names)} class names")
    keep = torch.zeros(first.shape, dtype=torch.bool)
    for counts in (first, second):
        keep.scatter_(1, counts.topk(min(top, counts.shape[1]), dim=1).indices, True)
    keep &= (first > 0) | (second > 0)
    rows, latents = keep.nonzero(as_tuple=True)
    pairs = torch.stack([first[rows, latents], second[rows, latents]], dim=1)
    order = pairs.amax(1).argsort(descending=True, stable=True)
    return torch.cat([rows[:, None], latents[:, None], pairs], dim=1)[order].tolist()
