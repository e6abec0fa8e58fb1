"""Area under the ROC curve of many scores against many labels at once. Knows numpy only."""

import numpy as np


def auroc(scores: np.ndarray, labels: np.ndarray, chunk: int = 512) -> np.ndarray:
    """AUROC of every score for every label, by the rank-sum (Mann–Whitney) identity, ties at half.

    scores (n, s) real; labels (n, c) bool. Returns float64 (s, c); NaN where a label is all or none.
    """
    if scores.ndim != 2 or labels.ndim != 2 or len(scores) != len(labels):
        raise ValueError(
            f"auroc: got scores {scores.shape} and labels {labels.shape}, expected (n, s) and (n, c)."
        )
    positives = labels.sum(0).astype(np.float64)
    negatives = len(labels) - positives
    target = labels.astype(np.float64)
    rows = [
        average_ranks(scores[:, i : i + chunk]).T @ target for i in range(0, scores.shape[1], chunk)
    ]
    rank_sum = np.concatenate(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def average_ranks(scores: np.ndarray) -> np.ndarray:
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
