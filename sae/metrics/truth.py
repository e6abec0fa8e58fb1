"""Which unit stands for which known factor, scored on data that did not choose it.

Knows scores of units (latents, neurons, components) and true labels of factors, per image or per patch.
Knows nothing of how either came about. The unit, its sign and its threshold are chosen on one half of the
data; every figure is of the other half, so that trying many units earns nothing.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, Num, Shaped
from scipy import sparse

from sae.metrics.auroc import auroc

Half = tuple[
    Num[np.ndarray, "n n_units"] | sparse.sparray,
    Shaped[np.ndarray, "n n_factors"] | sparse.sparray,
]
"""Units and labels of one half of the data."""
GOOD = 0.9
"""AUROC from which a unit counts as standing for a factor."""
N_CANDIDATES = 8
"""Units whose thresholds are searched for a factor: so many by AUROC, and as many by F1 of firing."""


class FactorScores(NamedTuple):
    """One entry per factor; NaN (units: -1) where a factor is always or never there in a half."""

    unit: Int64[np.ndarray, " n_factors"]
    """Unit of the largest AUROC on the choosing half; with `signed`, unit u of n is -unit (u - n)."""
    auroc: Float64[np.ndarray, " n_factors"]
    """Of that unit on the scoring half."""
    f1_unit: Int64[np.ndarray, " n_factors"]
    threshold: Float64[np.ndarray, " n_factors"]
    """With `f1_unit`, what had the largest F1 on the choosing half: the unit is above or equal."""
    f1: Float64[np.ndarray, " n_factors"]
    """Of that unit and threshold on the scoring half."""
    n_good: Int64[np.ndarray, " n_factors"]
    """Units with an AUROC of at least `GOOD` on both halves."""

    @property
    def measured(self) -> Bool[np.ndarray, " n_factors"]:
        """Factors that could be scored."""
        return ~np.isnan(self.auroc)

    def completeness(self, which: Shaped[np.ndarray, " n"] | slice = slice(None)) -> float:
        """Share of factors whose unit has an AUROC of at least `GOOD` on the scoring half."""
        scores = self.auroc[which][self.measured[which]]
        return float((scores >= GOOD).mean()) if len(scores) else float("nan")

    def redundancy(self, which: Shaped[np.ndarray, " n"] | slice = slice(None)) -> float:
        """Mean number of good units of those factors that have one; 1 is none too many."""
        counts = self.n_good[which]
        return float(counts[counts > 0].mean()) if (counts > 0).any() else float("nan")

    def distinct(self, which: Shaped[np.ndarray, " n"] | slice = slice(None)) -> float:
        """Different units among the good factors' best units, as a share of these factors."""
        units = self.unit[which][self.auroc[which] >= GOOD]
        return len(np.unique(units)) / len(units) if len(units) else float("nan")


def score_factors(
    choose: Half,
    score: Half,
    *,
    signed: bool = False,
) -> FactorScores:
    """The best unit of every factor.

    Each half is (units, labels): units `(n, n_units)` dense or scipy sparse, labels
    `(n, n_factors)` bool, dense or scipy sparse; the halves share no image. `signed` also takes
    every unit with its sign turned, as raw neurons and linear components need it (dense only).
    """
    (units, labels), (held_units, held_labels) = choose, score
    if units.shape[1] != held_units.shape[1] or labels.shape[1] != held_labels.shape[1]:
        raise ValueError(
            f"truth: the halves have {units.shape[1]} and {held_units.shape[1]} units, "
            f"{labels.shape[1]} and {held_labels.shape[1]} factors; expected the same."
        )
    if signed and sparse.issparse(units):
        raise ValueError("truth: signed units must be dense; sparse latents have one sign.")
    labels, held_labels = sparse.csc_array(labels), sparse.csc_array(held_labels)
    area, held_area = (
        _both_signs(auroc(*h), signed) for h in ((units, labels), (held_units, held_labels))
    )
    usable = ~(np.isnan(area[0]) | np.isnan(held_area[0]))
    factors = np.arange(labels.shape[1])
    unit = np.where(usable, np.nan_to_num(area).argmax(0), -1)
    best = np.where(usable, held_area[unit, factors], np.nan)
    n_good = np.where(usable, ((area >= GOOD) & (held_area >= GOOD)).sum(0), 0)
    f1_unit, threshold = _best_thresholds(units, labels, np.nan_to_num(area), usable)
    f1 = _f1_at(held_units, held_labels, f1_unit, threshold)
    return FactorScores(unit, best, f1_unit, threshold, f1, n_good)


def _both_signs(area: np.ndarray, signed: bool) -> np.ndarray:
    return np.concatenate([area, 1 - area]) if signed else area


def column(units: Any, number: int) -> tuple[Int[np.ndarray, " k"], Num[np.ndarray, " k"]]:
    """Rows and values of a unit of an array, of a scipy one only those stored; n + u is -unit u."""
    if sparse.issparse(units):
        part = slice(units.indptr[number], units.indptr[number + 1])
        return units.indices[part], units.data[part]
    sign, place = divmod(number, units.shape[1])
    return np.arange(len(units)), units[:, place] * (-1 if sign else 1)


def _best_thresholds(
    units: np.ndarray | sparse.sparray,
    labels: sparse.csc_array,
    area: np.ndarray,
    usable: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Unit and threshold of the largest F1 of each factor, among the most promising units."""
    n_units, n_factors = area.shape
    n = min(N_CANDIDATES, n_units)
    candidates = np.argpartition(-area, n - 1, axis=0)[:n]
    if sparse.issparse(units):
        units = sparse.csc_array(units)
        firing = _f1_of_firing(units, labels)
        candidates = np.concatenate([candidates, np.argpartition(-firing, n - 1, axis=0)[:n]])
    chosen = np.full(n_factors, -1)
    threshold, best = np.full(n_factors, np.nan), np.full(n_factors, -1.0)
    by_unit: dict[int, list[int]] = {}
    for factor in np.flatnonzero(usable).tolist():
        for unit in np.unique(candidates[:, factor]).tolist():
            by_unit.setdefault(unit, []).append(factor)
    is_positive = np.zeros(labels.shape[0], bool)
    for unit, factors in by_unit.items():
        rows, values = column(units, unit)
        order = np.argsort(-values, kind="stable")
        rows, values = rows[order], values[order]
        ends = np.flatnonzero(np.r_[values[1:] != values[:-1], True][: len(values)])
        if sparse.issparse(units):
            ends = ends[values[ends] > 0]
        if not len(ends):
            continue
        for factor in factors:
            positive = labels.indices[labels.indptr[factor] : labels.indptr[factor + 1]]
            is_positive[positive] = True
            f1 = 2 * np.cumsum(is_positive[rows])[ends] / (ends + 1 + len(positive))
            is_positive[positive] = False
            top = int(f1.argmax())
            if f1[top] > best[factor]:
                best[factor], chosen[factor] = f1[top], unit
                threshold[factor] = values[ends[top]]
    return chosen, threshold


def _f1_of_firing(units: sparse.csc_array, labels: sparse.csc_array) -> np.ndarray:
    """F1 `(n_units, n_factors)` of "the unit is above 0"."""
    fires = (units > 0).astype(np.float32)
    both = (fires.T @ labels.astype(np.float32)).toarray()
    totals = np.asarray(fires.sum(0))[:, None] + np.asarray(labels.sum(0))[None]
    return 2 * both / np.maximum(totals, 1)


def _f1_at(
    units: np.ndarray | sparse.sparray,
    labels: sparse.csc_array,
    chosen: np.ndarray,
    threshold: np.ndarray,
) -> np.ndarray:
    """F1 of the chosen unit at its threshold for each factor; NaN where none was chosen."""
    units = sparse.csc_array(units) if sparse.issparse(units) else units
    f1s = np.full(len(chosen), np.nan)
    is_positive = np.zeros(labels.shape[0], bool)
    for factor in np.flatnonzero(chosen >= 0):
        rows, values = column(units, int(chosen[factor]))
        above = rows[values >= threshold[factor]]
        positive = labels.indices[labels.indptr[factor] : labels.indptr[factor + 1]]
        is_positive[positive] = True
        total = len(above) + len(positive)
        f1s[factor] = 2 * is_positive[above].sum() / total if total else np.nan
        is_positive[positive] = False
    return f1s
