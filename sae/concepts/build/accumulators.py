"""Sums, counts and best rows of latents that come out the same to the last bit in any order.

Knows numbers only. Sums are kept as whole numbers of 2^-40 in two 64-bit parts; sparse counts as sorted
keys. Both merge by addition of whole numbers, which has no rounding. The n best rows of a latent are kept by
rank: one 64-bit number that no two rows of a latent share (an order, then the image's number), so the n
smallest ranks are one certain set: tables of two halves merge to the table of the whole, bit for bit.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int64, UInt64

_SCALE = 40
_SPLIT = 26
NONE = np.uint64(2**64 - 1)
"""Rank of an empty place."""
_LOW = np.uint64(0xFFFFFFFF)
_PENDING = 1 << 16

Payload = Mapping[str, np.ndarray]


class ExactSum:
    """Sums of non-negative float64 per latent, each rounded to a whole number of 2^-40 first."""

    def __init__(self, n: int) -> None:
        self._high, self._low = np.zeros(n, np.int64), np.zeros(n, np.int64)

    def add(self, latent: Int[np.ndarray, " rows"], values: Float64[np.ndarray, " rows"]) -> None:
        """Add `values` (rows) to the sums of `latent` (rows)."""
        units = np.rint(np.ldexp(values, _SCALE))
        high = np.floor(np.ldexp(units, -_SPLIT))
        low = units - np.ldexp(high, _SPLIT)
        n = len(self._high)
        # whole numbers below 2^53: the float64 sums of a batch are exact
        self._high += np.bincount(latent, weights=high, minlength=n).astype(np.int64)
        self._low += np.bincount(latent, weights=low, minlength=n).astype(np.int64)

    def value(self) -> Float64[np.ndarray, " n"]:
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

    def add(self, keys: Int[np.ndarray, " rows"], counts: Int[np.ndarray, " rows"]) -> None:
        """Add `counts` (rows) to the counts of `keys` (rows)."""
        self._pending.append((keys.astype(np.int64), counts.astype(np.int64)))
        self._n_pending += len(keys)
        if self._n_pending > max(1 << 20, len(self._keys)):
            self._settle()

    def merge(self, other: "SparseCounts") -> None:
        """Add the counts of other images."""
        self.add(*other.items())

    def items(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
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
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
        self._keys = keys[starts]
        self._counts = np.add.reduceat(counts, starts) if len(keys) else counts


class Table:
    """For each of `n_rows` latents the `n` rows of smallest rank, with named payload arrays.

    `fields` gives each payload's shape per row and dtype. Memory: n_rows × n × (8 + payload) bytes,
    and a quarter of that for rows that wait to be sorted in.
    """

    def __init__(
        self, n_rows: int, n: int, fields: Mapping[str, tuple[tuple[int, ...], type]]
    ) -> None:
        self.n = n
        self._ranks = np.full((n_rows, n), NONE)
        self._payload: dict[str, np.ndarray] = {
            name: np.zeros((n_rows, n, *shape), dtype) for name, (shape, dtype) in fields.items()
        }
        self._pending: list[tuple[np.ndarray, np.ndarray, Payload]] = []
        self._n_pending = 0

    def offer(
        self,
        latent: Int[np.ndarray, " rows"],
        rank: UInt64[np.ndarray, " rows"],
        payload: Callable[[Int[np.ndarray, " chosen"]], Payload],
    ) -> None:
        """Consider rows; `payload(rows)` is asked for the rows that may stay, none of them empty."""
        if not self.n:
            return
        rows = np.flatnonzero(rank < self._ranks[latent, -1])
        if not len(rows):
            return
        self._pending.append((latent[rows].astype(np.int64), rank[rows], payload(rows)))
        self._n_pending += len(rows)
        if self._n_pending > max(_PENDING, self._ranks.size // 4):
            self._settle()

    def merge(self, other: "Table") -> None:
        """Take in the rows of a table of other images."""
        other._settle()
        latent, column = np.nonzero(other._ranks != NONE)
        self.offer(
            latent,
            other._ranks[latent, column],
            lambda rows: {k: v[latent[rows], column[rows]] for k, v in other._payload.items()},
        )

    def state(self) -> dict[str, np.ndarray]:
        """ "ranks" uint64 (n_rows, n), rising along n, and the payload arrays."""
        self._settle()
        return {"ranks": self._ranks, **self._payload}

    def restore(self, state: Payload) -> None:
        """Go on from a state of the same sizes."""
        for name, array in {"ranks": self._ranks, **self._payload}.items():
            array[...] = state[name]

    def _settle(self) -> None:
        """Sort the waiting rows in, together with what the touched latents hold."""
        if not self._pending:
            return
        touched = np.unique(np.concatenate([part[0] for part in self._pending]))
        old, column = np.nonzero(self._ranks[touched] != NONE)
        old = touched[old]
        latent = np.concatenate([old, *(part[0] for part in self._pending)])
        rank = np.concatenate([self._ranks[old, column], *(p[1] for p in self._pending)])
        order = np.lexsort((rank, latent))
        by_latent = latent[order]
        starts = np.searchsorted(by_latent, touched)
        sizes = np.diff(np.append(starts, len(by_latent)))
        place = np.arange(len(order)) - np.repeat(starts, sizes)
        kept = place < self.n
        order, by_latent, place = order[kept], by_latent[kept], place[kept]
        for name, array in self._payload.items():
            rows = np.concatenate([array[old, column], *(p[2][name] for p in self._pending)])
            array[by_latent, place] = rows[order]
        self._ranks[by_latent, place] = rank[order]
        self._pending, self._n_pending = [], 0


def falling(
    values: Float[np.ndarray, "*shape"], numbers: Int[np.ndarray, "*shape"]
) -> UInt64[np.ndarray, "*shape"]:
    """Ranks uint64 that put larger values (float32, not negative) first, then smaller numbers."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((_LOW - bits) << np.uint64(32)) | numbers.astype(np.uint64)


def by_chance(numbers: Int[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Ranks uint64 in an order that has nothing to do with the images, the same in every run."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele et al. 2014)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = x ^ (x >> np.uint64(31))
    return (mixed & ~_LOW) | numbers.astype(np.uint64)


def image_numbers(ranks: UInt64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    """Image numbers int64 of ranks, -1 for empty places."""
    return np.where(ranks == NONE, -1, (ranks & _LOW).astype(np.int64))


def values_of(ranks: UInt64[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """The values float32 that `falling` was given, 0 for empty places."""
    bits = (_LOW - (ranks >> np.uint64(32))).astype(np.uint32)
    return np.where(ranks == NONE, np.float32(0), bits.view(np.float32))
