"""Do two trainings find the same directions? Decoder rows of two SAEs, matched.

Knows two dictionaries. Knows nothing of data. Similarity is the cosine after each dictionary's mean row is
taken off: a direction shared by all rows would otherwise make any two dictionaries look alike. Two nulls
stand beside every figure, measured the same way on random dictionaries of the same sizes: rows without
any structure, and rows with the two dictionaries' own covariances, which also know where the data lies.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MATCHED_UP_TO = 4096
"""Largest number of rows for which the one-to-one matching is computed by default."""
SAME = 0.7
"""Cosine from which two rows count as the same direction."""
SIMILARITIES_AT_ONCE = 1 << 24


class Agreement(NamedTuple):
    """How well the rows of two dictionaries agree."""

    matched: float
    """Mean cosine of the best one-to-one matching (Hungarian); NaN if it was not computed."""
    matched_same: float
    """Share of matched pairs with a cosine of at least `SAME`; NaN if not computed."""
    nearest: float
    """Mean cosine of each row with its nearest in the other dictionary, both ways."""
    nearest_same: float
    """Share of rows whose nearest has a cosine of at least `SAME`, both ways."""


class Stability(NamedTuple):
    """Agreement of two dictionaries, and that of random ones."""

    found: Agreement
    null: Agreement
    """Gaussian rows."""
    null_covariance: Agreement
    """Gaussian rows with each dictionary's own covariance."""
    centred: bool


def stability(
    first: Float[Tensor, "n d"] | Float[np.ndarray, "n d"],
    second: Float[Tensor, "m d"] | Float[np.ndarray, "m d"],
    *,
    centre: bool = True,
    match: bool | None = None,
    seed: int = 0,
) -> Stability:
    """Agreement of decoders `(n, d)` and `(m, d)`, of equal d.

    `match` says whether to compute the one-to-one matching, in time cubic and memory quadratic in the
    number of rows; by default up to `MATCHED_UP_TO` rows. The nearest rows are found in chunks.
    Rows of length 0 are left out.
    """
    dictionaries = [_rows(first), _rows(second)]
    a, b = dictionaries
    if a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ValueError(
            f"stability: got decoders {tuple(a.shape)} and {tuple(b.shape)} (rows of length 0 left "
            "out), expected rows of the same width; are they of the same backbone?"
        )
    if match is None:
        match = max(len(a), len(b)) <= MATCHED_UP_TO
    generator = torch.Generator().manual_seed(seed)
    random = [torch.randn(rows.shape, generator=generator) for rows in dictionaries]
    shaped = [_with_covariance_of(rows, generator) for rows in dictionaries]
    agreement, null, null_covariance = (
        _agreement(_unit(one, centre), _unit(other, centre), match)
        for one, other in (dictionaries, random, shaped)
    )
    return Stability(agreement, null, null_covariance, centre)


def _rows(dictionary: Tensor | np.ndarray) -> Tensor:
    """Float32 rows of length 1, those of length 0 left out."""
    rows = torch.as_tensor(dictionary).detach().cpu().float()
    if rows.dim() != 2 or not bool(rows.isfinite().all()):
        raise ValueError(f"stability: got {tuple(rows.shape)}, expected finite rows (n, d).")
    lengths = rows.norm(dim=1, keepdim=True)
    kept = lengths[:, 0] > 0
    return rows[kept] / lengths[kept]


def _with_covariance_of(rows: Tensor, generator: torch.Generator) -> Tensor:
    """As many Gaussian rows with the same mean and covariance."""
    centre = rows.mean(0)
    _, lengths, directions = torch.linalg.svd(rows - centre, full_matrices=False)
    noise = torch.randn(len(rows), len(lengths), generator=generator)
    return (noise * lengths / len(rows) ** 0.5) @ directions + centre


def _unit(rows: Tensor, centre: bool) -> Tensor:
    rows = rows - rows.mean(0) if centre and len(rows) > 1 else rows
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _agreement(a: Tensor, b: Tensor, match: bool) -> Agreement:
    best_a, best_b = torch.full((len(a),), -1.0), torch.full((len(b),), -1.0)
    step = max(1, SIMILARITIES_AT_ONCE // len(b))
    for start in range(0, len(a), step):
        cosines = a[start : start + step] @ b.T
        best_a[start : start + step] = cosines.amax(1)
        best_b = torch.maximum(best_b, cosines.amax(0))
    nearest = (float(best_a.mean()) + float(best_b.mean())) / 2
    same = (float((best_a >= SAME).float().mean()) + float((best_b >= SAME).float().mean())) / 2
    if not match:
        return Agreement(float("nan"), float("nan"), nearest, same)
    table = (a @ b.T).numpy()
    paired = table[linear_sum_assignment(table, maximize=True)]
    return Agreement(float(paired.mean()), float((paired >= SAME).mean()), nearest, same)
