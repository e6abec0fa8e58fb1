"""Do latents differ? How much the exemplar sets of all pairs of latents overlap.

Knows exemplar numbers. Pach et al.: the Jaccard index |A ∩ B| / |A ∪ B| of the k top images of two
latents, latents with fewer than k left out and counted. Sets are joined through the images that they
share, so the time goes with the number of overlapping pairs, not with n_latents².
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64
from scipy import sparse

PAIRS_AT_ONCE = 1 << 22
"""Overlapping pairs held at once, about."""


class Uniqueness(NamedTuple):
    """Overlap of exemplar sets over all pairs of latents that have k exemplars."""

    n_latents: int
    """Latents compared."""
    n_excluded: int
    """Latents with fewer than k exemplars."""
    n_pairs: int
    pairs_by_shared: Int64[np.ndarray, " k+1"]
    """Pairs that share 0, 1, … k images."""
    nearest: Float64[np.ndarray, " all_latents"]
    """The largest Jaccard index with any other latent; NaN where excluded."""

    def share_above(self, jaccard: float) -> float:
        """The share of pairs whose Jaccard index is larger than `jaccard`; NaN without pairs."""
        k = len(self.pairs_by_shared) - 1
        shared = np.arange(k + 1)
        above = self.pairs_by_shared[shared / (2 * k - shared) > jaccard].sum()
        return float(above / self.n_pairs) if self.n_pairs else float("nan")

    @property
    def mean(self) -> float:
        """The mean Jaccard index over all pairs; NaN without pairs."""
        k = len(self.pairs_by_shared) - 1
        shared = np.arange(k + 1)
        total = (self.pairs_by_shared * shared / (2 * k - shared)).sum()
        return float(total / self.n_pairs) if self.n_pairs else float("nan")


def uniqueness(exemplars: Int[np.ndarray, "n_latents k"]) -> Uniqueness:
    """Overlap of exemplar sets; `exemplars (n_latents, k)` image numbers, -1 where there is none."""
    ids = np.asarray(exemplars)
    if ids.ndim != 2 or ids.shape[1] < 1:
        raise ValueError(f"uniqueness: got exemplars {ids.shape}, expected (n_latents, k).")
    kept = np.flatnonzero((ids >= 0).all(1))
    n, k = len(kept), ids.shape[1]
    nearest = np.full(len(ids), np.nan)
    by_shared = np.zeros(k + 1, np.int64)
    n_pairs = n * (n - 1) // 2
    if n == 0:
        return Uniqueness(0, len(ids), 0, by_shared, nearest)
    _, image = np.unique(ids[kept], return_inverse=True)
    image = image.reshape(n, k)
    if (np.sort(image, 1)[:, 1:] == np.sort(image, 1)[:, :-1]).any():
        raise ValueError("uniqueness: a latent has the same exemplar twice.")
    members = sparse.csr_array(
        (np.ones(n * k, np.int32), image.ravel(), np.arange(0, n * k + 1, k)),
        shape=(n, int(image.max()) + 1),
    )
    by_image = members.T.tocsr()
    work = np.diff(by_image.indptr)[image].sum(1).cumsum()  # joins up to each latent
    most, start = np.zeros(n, np.int64), 0
    while start < n:
        limit = (work[start - 1] if start else 0) + PAIRS_AT_ONCE
        stop = max(start + 1, int(np.searchsorted(work, limit, side="right")))
        shared = (members[start:stop] @ by_image).tocoo()
        row, column, count = shared.row + start, shared.col, shared.data
        others = row != column
        np.maximum.at(most, row[others], count[others])
        by_shared += np.bincount(count[column > row], minlength=k + 1)
        start = stop
    by_shared[0] = n_pairs - by_shared[1:].sum()
    nearest[kept] = most / (2 * k - most)
    return Uniqueness(n, len(ids) - n, n_pairs, by_shared, nearest)
