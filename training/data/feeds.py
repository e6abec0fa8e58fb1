"""What a stream asks of whatever rows come from: images and a backbone, or a store.

Knows groups of places and their rows as types. Knows nothing of rounds, images or files.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Group(NamedTuple):
    """Places that are read together. Groups of one span lie side by side in the walk."""

    round: int
    span: int
    places: list[int]


class Rows(NamedTuple):
    """What a Feed gives for a group, in the order of its places."""

    rows: Tensor
    """`(len(places) * rows_per_place, d)` float32."""
    n_unreadable: int = 0
    reason: str = ""
    """Why the last unreadable image was."""


class Feed(Protocol):
    """Rows of activations for groups of places."""

    rows_per_place: int
    group: int
    """Most places of a group."""
    d: int
    device: torch.device
    cls_first: bool
    """Whether the first row of every place is a CLS token, and no other row is."""

    def read(self, groups: Iterator[Group], state: Any) -> Iterator[Rows]:
        """The groups' rows, one after the other; reading ahead is welcome."""

    def n_images(self, n_places: int) -> int:
        """How many images that many places stand for."""

    def state(self, round: int) -> Any:
        """JSON: what `read` needs to begin at this round besides the groups (None: nothing)."""

    def close(self) -> None:
        """End workers."""
