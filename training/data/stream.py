"""Shuffled batches that do not depend on how many processes deal them.

Knows rounds, shards and permutations, and what it asks of a Feed, whatever the rows come from: images and a
backbone, or a store (`training.data.feeds`, `training.data.store`). The plan:

- Places 0, 1, 2, … are an endless walk over the data (an image each, or a chunk of a store).
- A round takes the next `n_places * n_shards` places. Place p belongs to shard p mod `n_shards`.
- A shard's rows of a round are permuted by (seed, round, shard), and each of the round's `buffer`
  steps takes the next `batch / n_shards` of them; what is left over at the end is dropped.
- A step's global batch is the union over shards. Rank r of W reads the shards r, r + W, …

So W processes with batch B / W see, step by step, what one process with batch B sees, and
everything follows from the seed and the position (round, batch): no generator has to be saved.
While a round is dealt the next one is filled, a little before each batch.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.errors import ImageError
from sae.images import MAX_UNREADABLE, too_many_unreadable

N_SHARDS = 8
"""Default number of shards; the number of processes must divide the number of shards."""


class Group(NamedTuple):
    """Places that are read together. Groups of one span lie side by side in the walk."""

    round: int
    span: int
    places: list[int]


class Rows(NamedTuple):
    """What a Feed gives for a group, in the order of its places."""

    rows: Float[Tensor, "rows d_in"]
    """`(len(places) * rows_per_place, d)` float32."""
    n_unreadable: int = 0
    reason: str = ""
    """Why the last unreadable image was."""


class Feed(Protocol):
    """Rows of activations for groups of places."""

    @property
    def rows_per_place(self) -> int: ...
    @property
    def group(self) -> int:
        """Most places of a group."""

    @property
    def d(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def cls_first(self) -> bool:
        """Whether the first row of every place is a CLS token, and no other row is."""

    def read(self, groups: Iterator[Group], state: Any) -> Iterator[Rows]:
        """The groups' rows, one after the other; reading ahead is welcome."""

    def n_images(self, n_places: int) -> int:
        """How many images that many places stand for."""

    def state(self, round: int) -> Any:
        """JSON: what `read` needs to begin at this round besides the groups (None: nothing)."""

    def close(self) -> None:
        """End workers."""


class Stopped(Exception):
    """The stream was asked to stop while it filled its buffer."""


class Stream:
    """Batches `(batch / world, d)` of float32 activations on the feed's device.

    `batch` is the global batch. With `n_steps` the stream ends with the round that has this step,
    and nothing is read beyond. `position` (JSON) may be set before the first batch is asked for.
    `should_stop` is asked between groups; if true, Stopped is raised and `position` still says
    where the last dealt batch ended. More than `max_unreadable` unreadable images (a share, but 10
    are always let pass) raise ImageError.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        batch: int,
        buffer: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        n_shards: int | None = None,
        n_steps: int | None = None,
        max_unreadable: float = MAX_UNREADABLE,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.feed, self.batch, self.buffer, self.seed = feed, batch, buffer, seed
        self.rank, self.world, self.should_stop = rank, world, should_stop
        self.max_unreadable = max_unreadable
        self.n_shards = shards_for(batch, world, n_shards)
        self._own = range(rank, self.n_shards, world)
        self._pieces = [batch // self.n_shards + (s < batch % self.n_shards) for s in self._own]
        most = -(-batch // self.n_shards)
        self.n_places = -(-buffer * most // feed.rows_per_place)
        """Places of a shard in a round."""
        self._n_rounds = None if n_steps is None else -(-n_steps // buffer)
        self._round = self._batch = self._bad_before = 0
        self._state: Any = None
        self._rows: Iterator[Rows] | None = None
        self._now: _Filling | None = None
        self._next: _Filling | None = None
        self._spare: Tensor | None = None
        self._dealt: Tensor | None = None

    @property
    def position(self) -> dict[str, Any]:
        """Where the last dealt batch ended: round, batch, unreadable images before this round."""
        return {
            "round": self._round,
            "batch": self._batch,
            "n_unreadable": self._bad_before,
            "source": self._state,
        }

    @position.setter
    def position(self, position: dict[str, Any]) -> None:
        self.close()
        self._round, self._batch = position["round"], position["batch"]
        self._bad_before, self._state = position["n_unreadable"], position["source"]

    @property
    def n_images(self) -> int:
        """Images that all processes together drew from, the round at hand included."""
        n_rounds = self._round + (self._now is not None)
        return self.feed.n_images(n_rounds * self.n_places * self.n_shards)

    @property
    def n_unreadable(self) -> int:
        """Unreadable images of this process, the round at hand included."""
        return self._bad_before + (self._now.n_bad if self._now else 0)

    def first_buffer(self) -> Float[Tensor, "rows d_in"]:
        """All rows `(rows, d)` of this process's share of the round at hand, place by place.

        The shares of all processes together do not depend on their number.
        """
        return self._current().pool.flatten(0, 1)

    @property
    def cls(self) -> Bool[Tensor, " batch"] | None:
        """`(batch / world,)` bool: rows of the last batch that are CLS tokens; None if unknown."""
        if self._dealt is None or not self.feed.cls_first:
            return None
        return self._dealt % self.feed.rows_per_place == 0

    def __iter__(self) -> Iterator[Float[Tensor, "batch d_in"]]:
        while self._n_rounds is None or self._round < self._n_rounds:
            now = self._current()
            pool, order = now.pool.flatten(0, 1), self._deal()
            while self._batch < self.buffer:
                self._dealt = order[self._batch]
                self._batch += 1
                yield pool[self._dealt]
                self._fill_ahead(self._batch / self.buffer)
            self._bad_before += now.n_bad
            self._round, self._batch = self._round + 1, 0
            self._state = self.feed.state(self._round)
            self._spare, self._now, self._next = now.pool, self._next, None

    def close(self) -> None:
        """Let go of buffers and workers; iterating begins again at `position`."""
        self._rows = self._now = self._next = self._spare = None
        self.feed.close()

    def _current(self) -> "_Filling":
        """The round at hand, whole."""
        if self._now is None:
            self._now = self._new()
        self._fill(self._now, self._now.n_groups)
        return self._now

    def _new(self) -> "_Filling":
        pool, self._spare = self._spare, None
        return _Filling(self, pool)

    def _fill_ahead(self, share: float) -> None:
        """Read that share of the next round, if there is one."""
        if self._n_rounds is not None and self._round + 1 >= self._n_rounds:
            return
        if self._next is None:
            self._next = self._new()
        self._fill(self._next, round(share * self._next.n_groups))

    def _fill(self, filling: "_Filling", until: int) -> None:
        if self._rows is None:
            self._rows = self.feed.read(self._groups(), self._state)
        while filling.n_done < until:
            if self.should_stop():
                raise Stopped
            rows = next(self._rows)
            filling.add(rows)
            self._check(rows.reason)

    def _check(self, reason: str) -> None:
        parts = [part for part in (self._now, self._next) if part]
        bad = self._bad_before + sum(part.n_bad for part in parts)
        before = self._round * self.n_places * len(self._own)
        read = before + bad + sum(part.n_read for part in parts)
        if too_many_unreadable(bad, read, self.max_unreadable):
            raise ImageError(
                f"{bad} of {read} images could not be read (the last: {reason}) Repair them, or let "
                "more pass with --max-unreadable, and go on with --resume."
            )

    def _groups(self) -> Iterator[Group]:
        """All groups from the round at hand on, in the order in which they are read."""
        at = self._round
        while self._n_rounds is None or at < self._n_rounds:
            first = at * self.n_places * self.n_shards
            for span, (start, end) in enumerate(self._spans()):
                for shard in self._own:
                    places = range(
                        first + shard, first + self.n_places * self.n_shards, self.n_shards
                    )
                    yield Group(at, span, list(places[start:end]))
            at += 1

    def _spans(self) -> list[tuple[int, int]]:
        """A shard's places of a round, cut into groups of nearly equal size."""
        n = -(-self.n_places // self.feed.group)
        edges = [i * self.n_places // n for i in range(n + 1)]
        return list(zip(edges[:-1], edges[1:], strict=True))

    def _permutation(self, shard: int) -> Tensor:
        seeds = np.random.SeedSequence((self.seed, self._round, shard))
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))
        n = self.n_places * self.feed.rows_per_place
        return torch.randperm(n, generator=generator).to(self.feed.device)

    def _deal(self) -> Tensor:
        """`(buffer, batch / world)`: the rows of the pool that each step takes."""
        n = self.n_places * self.feed.rows_per_place
        parts = [
            number * n + self._permutation(shard)[: piece * self.buffer].view(self.buffer, piece)
            for number, (shard, piece) in enumerate(zip(self._own, self._pieces, strict=True))
        ]
        return torch.cat(parts, dim=1)


class _Filling:
    """The rows `pool (own shards, rows of a shard, d)` of a round, as far as they are read."""

    def __init__(self, stream: Stream, pool: Tensor | None) -> None:
        feed, n_own = stream.feed, len(stream._own)
        shape = (n_own, stream.n_places * feed.rows_per_place, feed.d)
        self.pool = torch.empty(shape, device=feed.device) if pool is None else pool
        self.n_groups = len(stream._spans()) * n_own
        self.n_done = self.n_bad = self.n_read = 0
        self._ends = [0] * n_own
        self._per_place = feed.rows_per_place

    def add(self, read: Rows) -> None:
        shard = self.n_done % len(self._ends)
        start = self._ends[shard]
        self._ends[shard] = end = start + len(read.rows)
        self.pool[shard, start:end] = read.rows
        self.n_done += 1
        self.n_bad += read.n_unreadable
        self.n_read += len(read.rows) // self._per_place


def shards_for(batch: int, world: int, n_shards: int | None) -> int:
    """The number of shards: as asked, else 8, or the next multiple of the number of processes.

    Small batches have as many shards as rows. ValueError if the processes cannot share them.
    """
    n = n_shards or -(-N_SHARDS // world) * world
    if n % world or batch % world:
        what = f"--shards {n}" if n % world else f"a global batch of {batch} tokens"
        raise ValueError(
            f"{what} cannot be shared by {world} processes; give a multiple of {world}."
        )
    return min(n, batch)
