"""Area under the ROC curve of many scores against many labels at once. Knows numpy and scipy only."""

import numpy as np
from jaxtyping import Float64, Num, Shaped
from scipy import sparse


def auroc(
    scores: Num[np.ndarray, "n s"] | sparse.sparray,
    labels: Shaped[np.ndarray, "n c"] | sparse.sparray,
    chunk: int = 64,
) -> Float64[np.ndarray, "s c"]:
    """AUROC of every score for every label, by the rank-sum (Mann–Whitney) identity, ties at half.

    scores (n, s) real, dense or scipy sparse (the same result, in time of the entries stored);
    labels (n, c) bool, dense or scipy sparse. Returns float64 (s, c); NaN where a label is all or
    none. ValueError at scores that are not finite: they have no rank.
    """
    if len(scores.shape) != 2 or len(labels.shape) != 2 or scores.shape[0] != labels.shape[0]:
        raise ValueError(
            f"auroc: got scores {scores.shape} and labels {labels.shape}, expected (n, s) and (n, c)."
        )
    if not np.isfinite(scores.data if sparse.issparse(scores) else scores).all():
        raise ValueError("auroc: some scores are not finite (NaN or infinite).")
    target = sparse.csr_array(labels, dtype=np.float64)
    positives = np.asarray(target.sum(0), dtype=np.float64)
    negatives = labels.shape[0] - positives
    if sparse.issparse(scores):
        rank_sum = _sparse_rank_sum(scores, target, positives)
    else:
        rows = [
            (target.T @ average_ranks(scores[:, i : i + chunk])).T
            for i in range(0, scores.shape[1], chunk)
        ]
        rank_sum = np.concatenate(rows) if rows else np.zeros((0, labels.shape[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _sparse_rank_sum(
    scores: sparse.sparray, target: sparse.csr_array, positives: np.ndarray
) -> np.ndarray:
    """Sum of ranks over each label's positives (s, c): the zeros' shared rank for all of them, and
    for those stored what their rank is above it."""
    columns = sparse.csc_array(scores, copy=True)
    columns.sum_duplicates()
    columns.eliminate_zeros()
    n, n_columns = columns.shape
    counts = np.diff(columns.indptr)
    column = np.repeat(np.arange(n_columns), counts)
    order = np.lexsort((columns.data, column))
    value = columns.data[order].astype(np.float64)
    place = np.arange(len(order))
    starts = np.ones(len(order), bool)
    starts[1:] = (value[1:] != value[:-1]) | (column[1:] != column[:-1])
    first = np.flatnonzero(starts)
    last = np.r_[first[1:], len(order)] - 1
    middle = ((first + last) / 2)[np.cumsum(starts) - 1] if len(order) else place
    n_zeros = n - counts
    rank = middle - columns.indptr[column] + 1 + np.where(value > 0, n_zeros[column], 0)
    n_negative = np.bincount(column, weights=value < 0, minlength=n_columns)
    rank_of_zero = n_negative + (n_zeros + 1) / 2
    above = sparse.csc_array(
        (rank - rank_of_zero[column], columns.indices[order], columns.indptr), shape=columns.shape
    )
    sums = above.T @ target
    return sums.toarray() + np.outer(rank_of_zero, positives)


def average_ranks(scores: Num[np.ndarray, "n s"]) -> Float64[np.ndarray, "n s"]:
    """Ranks from 1 within each column (n, s); equal scores share the mean of their ranks."""
    n = len(scores)
    order = np.argsort(scores, axis=0, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=0)
    starts = np.ones_like(ordered, dtype=bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    places = np.arange(n)[:, None]
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=0)
    ends = np.ones_like(starts)
    ends[:-1] = starts[1:]
    last = np.minimum.accumulate(np.where(ends, places, n)[::-1], axis=0)[::-1]
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=0)
    return ranks
