"""Sparse probing: how well one unit, or a few, tell a class from the rest.

Knows units per image (latents, raw neurons) and labels. Knows nothing of SAEs. For each class the units are
ranked, scaled, fitted and given a threshold on the training images alone; figures are of the test images.
Compare latents with raw neurons at the same k and the same split. Needs scikit-learn.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy import sparse

from sae.metrics.auroc import auroc
from sae.metrics.image_blocks import Array, columns_of

TEST_SHARE = 0.25


class Probing(NamedTuple):
    """Test figures by k and class; NaN where a class is always or never there in a part."""

    ks: tuple[int, ...]
    auroc: Float64[np.ndarray, "n_ks n_classes"]
    f1: Float64[np.ndarray, "n_ks n_classes"]
    """The threshold has the largest F1 on the training images."""
    units: Int64[np.ndarray, "n_classes max_k"]
    """The units of each class, most telling first."""

    def means(self) -> dict[int, tuple[float, float]]:
        """k → mean AUROC and mean F1 over the classes that could be measured."""
        with np.errstate(invalid="ignore"):
            pairs = [(_mean(a), _mean(f)) for a, f in zip(self.auroc, self.f1, strict=True)]
        return dict(zip(self.ks, pairs, strict=True))


def sparse_probing(
    units: Array,
    labels: Shaped[np.ndarray, "n_images ..."],
    *,
    ks: Sequence[int] = (1, 5, 20),
    train: Bool[np.ndarray, " n_images"] | None = None,
    seed: int = 0,
) -> Probing:
    """Logistic regression (C = 1) on the k most telling units of each class against the rest.

    units `(n_images, n_units)` dense or sparse; labels `(n_images,)` class numbers (-1 for none) or
    `(n_images, n_classes)` bool. `train (n_images,)` bool is the split; by default a quarter is for
    testing, with every class in proportion where images have one class. A unit tells as much as
    its mean differs between class and rest, in units of its spread (the t statistic).
    """
    columns, labels = columns_of(units), np.asarray(labels)
    if len(labels) != columns.shape[0]:
        raise ValueError(
            f"sparse_probing: got {columns.shape[0]} images of units and {len(labels)} of labels."
        )
    ks = tuple(sorted({min(k, columns.shape[1]) for k in ks}))
    if not ks or ks[0] < 1:
        raise ValueError(f"sparse_probing: ks must be at least 1, got {ks}.")
    train = split(labels, seed) if train is None else np.asarray(train, dtype=bool)
    if labels.ndim == 1:
        labels = labels[:, None] == np.unique(labels[labels >= 0])
    rows = columns.tocsr()
    parts = rows[np.flatnonzero(train)], rows[np.flatnonzero(~train)]
    truth = labels[train], labels[~train]
    statistics, scale = _separation(parts[0], truth[0])
    n = ks[-1]
    best = np.argsort(-statistics, axis=0, kind="stable")[:n].T
    area, f1 = (np.full((len(ks), labels.shape[1]), np.nan) for _ in range(2))
    usable = [(part.any(0) & ~part.all(0)) for part in truth]
    parts = tuple(part.tocsc() for part in parts)
    for number in np.flatnonzero(usable[0] & usable[1]):
        chosen = best[number]
        x, x_test = (part[:, chosen].toarray() / scale[chosen] for part in parts)
        for place, k in enumerate(ks):
            scores = _fit(x[:, :k], truth[0][:, number], x_test[:, :k])
            area[place, number] = auroc(scores[1][:, None], truth[1][:, number, None])[0, 0]
            f1[place, number] = _f1(scores, truth[0][:, number], truth[1][:, number])
    return Probing(ks, area, f1, best)


def split(labels: Shaped[np.ndarray, "n_images ..."], seed: int) -> Bool[np.ndarray, " n_images"]:
    """True for training: three quarters, of every class where labels are class
    numbers, so that a class of two images or more is on both sides."""
    rng = np.random.default_rng(seed)
    n = len(labels)
    order = rng.permutation(n)
    if labels.ndim == 1:
        order = order[np.argsort(labels[order], kind="stable")]
        _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
        place = np.arange(n) - np.repeat(first, counts)
        n_test = np.maximum(np.round(TEST_SHARE * counts), counts > 1)
        in_test = place < np.repeat(n_test, counts)
    else:
        in_test = np.arange(n) < round(TEST_SHARE * n)
    train = np.ones(n, bool)
    train[order[in_test]] = False
    return train


def _separation(units: sparse.csr_array, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|t| `(n_units, n_classes)` of class against rest, and the spread of each unit."""
    n, total = len(labels), np.asarray(units.sum(0))
    squares = np.asarray(units.multiply(units).sum(0))
    n_in = labels.sum(0)
    sums = (sparse.csr_array(labels.T.astype(np.float64)) @ units).toarray().T
    with np.errstate(invalid="ignore", divide="ignore"):
        inside, outside = sums / n_in, (total[:, None] - sums) / (n - n_in)
        within = squares[:, None] - n_in * inside**2 - (n - n_in) * outside**2
        error = np.sqrt(np.maximum(within, 0) / max(n - 2, 1) * (1 / n_in + 1 / (n - n_in)))
        statistics = np.abs(inside - outside) / np.maximum(error, 1e-12)
    spread = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
    return np.nan_to_num(statistics), np.where(spread > 0, spread, 1.0)


def _fit(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the training and of the test images."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "Sparse probing needs scikit-learn: pip install scikit-learn (it is among the dev extras)."
        ) from error
    model = LogisticRegression(C=1.0, max_iter=1000).fit(x, y)
    return model.decision_function(x), model.decision_function(x_test)


def _f1(scores: tuple[np.ndarray, np.ndarray], y: np.ndarray, y_test: np.ndarray) -> float:
    """Test F1 at the threshold of the largest training F1."""
    order = np.argsort(-scores[0], kind="stable")
    ordered = scores[0][order]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    f1 = 2 * np.cumsum(y[order])[ends] / (ends + 1 + y.sum())
    above = scores[1] >= ordered[ends[f1.argmax()]]
    return float(2 * (above & y_test).sum() / max(above.sum() + y_test.sum(), 1))


def _mean(values: np.ndarray) -> float:
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")
