"""The n best rows of every latent, in bounded memory, exactly, whatever the order they come in.

Knows ranks and payloads; knows nothing of images or activations but the order that makes a rank. A rank
is one 64-bit number that no two rows of a latent share (an order, then the image's number), so the n
smallest ranks are one certain set: tables of two halves merge to the table of the whole, bit for bit.
"""

from collections.abc import Callable, Mapping

import numpy as np

NONE = np.uint64(2**64 - 1)
"""Rank of an empty place."""
_LOW = np.uint64(0xFFFFFFFF)
_PENDING = 1 << 16

Payload = Mapping[str, np.ndarray]


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
        self._payload = {
            name: np.zeros((n_rows, n, *shape), dtype) for name, (shape, dtype) in fields.items()
        }
        self._pending: list[tuple[np.ndarray, np.ndarray, Payload]] = []
        self._n_pending = 0

    def offer(
        self, latent: np.ndarray, rank: np.ndarray, payload: Callable[[np.ndarray], Payload]
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


def falling(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Ranks uint64 that put larger values (float32, not negative) first, then smaller numbers."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((_LOW - bits) << np.uint64(32)) | numbers.astype(np.uint64)


def by_chance(numbers: np.ndarray) -> np.ndarray:
    """Ranks uint64 in an order that has nothing to do with the images, the same in every run."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele et al. 2014)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = x ^ (x >> np.uint64(31))
    return (mixed & ~_LOW) | numbers.astype(np.uint64)


def image_numbers(ranks: np.ndarray) -> np.ndarray:
    """Image numbers int64 of ranks, -1 for empty places."""
    return np.where(ranks == NONE, -1, (ranks & _LOW).astype(np.int64))


def values_of(ranks: np.ndarray) -> np.ndarray:
    """The values float32 that `falling` was given, 0 for empty places."""
    bits = (_LOW - (ranks >> np.uint64(32))).astype(np.uint32)
    return np.where(ranks == NONE, np.float32(0), bits.view(np.float32))
