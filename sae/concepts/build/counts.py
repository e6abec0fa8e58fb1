"""Sums and counts that come out the same to the last bit, in whatever order things are added.

Knows numbers only. Sums are kept as whole numbers of 2^-40 in two 64-bit parts; sparse counts as sorted
keys. Both merge by addition of whole numbers, which has no rounding.
"""

import numpy as np

_SCALE = 40
_SPLIT = 26


class ExactSum:
    """Sums of non-negative float64 per latent, each rounded to a whole number of 2^-40 first."""

    def __init__(self, n: int) -> None:
        self._high, self._low = np.zeros(n, np.int64), np.zeros(n, np.int64)

    def add(self, latent: np.ndarray, values: np.ndarray) -> None:
        """Add `values` (rows) to the sums of `latent` (rows)."""
        units = np.rint(np.ldexp(values, _SCALE))
        high = np.floor(np.ldexp(units, -_SPLIT))
        low = units - np.ldexp(high, _SPLIT)
        n = len(self._high)
        # whole numbers below 2^53: the float64 sums of a batch are exact
        self._high += np.bincount(latent, weights=high, minlength=n).astype(np.int64)
        self._low += np.bincount(latent, weights=low, minlength=n).astype(np.int64)

    def value(self) -> np.ndarray:
        """The sums, float64."""
        return np.ldexp(self._high.astype(np.float64), _SPLIT - _SCALE) + np.ldexp(
            self._low.astype(np.float64), -_SCALE
        )

    def merge(self, other: "ExactSum") -> None:
        """Add the sums of other images."""
        self._high += other._high
        self._low += other._low

    def state(self) -> dict[str, np.ndarray]:
        """Two int64 arrays."""
        return {"high": self._high, "low": self._low}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state."""
        self._high, self._low = state["high"].copy(), state["low"].copy()


class SparseCounts:
    """Counts by a 64-bit key; memory follows the number of different keys."""

    def __init__(self) -> None:
        self._keys, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._n_pending = 0

    def add(self, keys: np.ndarray, counts: np.ndarray) -> None:
        """Add `counts` (rows) to the counts of `keys` (rows)."""
        self._pending.append((keys.astype(np.int64), counts.astype(np.int64)))
        self._n_pending += len(keys)
        if self._n_pending > max(1 << 20, len(self._keys)):
            self._settle()

    def merge(self, other: "SparseCounts") -> None:
        """Add the counts of other images."""
        self.add(*other.items())

    def items(self) -> tuple[np.ndarray, np.ndarray]:
        """Rising keys and their counts, int64."""
        self._settle()
        return self._keys, self._counts

    def state(self) -> dict[str, np.ndarray]:
        """Keys and counts."""
        keys, counts = self.items()
        return {"keys": keys, "counts": counts}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state."""
        self._keys, self._counts = state["keys"].copy(), state["counts"].copy()

    def _settle(self) -> None:
        if not self._pending:
            return
        keys = np.concatenate([self._keys, *(part[0] for part in self._pending)])
        counts = np.concatenate([self._counts, *(part[1] for part in self._pending)])
        self._pending, self._n_pending = [], 0
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else []
        self._keys = keys[starts] if len(keys) else keys
        self._counts = np.add.reduceat(counts, starts) if len(keys) else counts
