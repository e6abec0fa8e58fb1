"""Hugging Face datasets that are streamed: rows in their stored order, split over processes.

Knows `datasets.IterableDataset`, its splitting by node and its state. There is no access by number:
a Reader hands out the rows one after the other and says where it stands. The first `n_eval` images
are held out, by content: training skips every row with the same bytes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from sae.images import ImageError, open_image
from training.data.sources.hugging_face import image_column, open_rows
from training.data.sources.image_source import ImageSource


@dataclass(frozen=True)
class StreamedSource:
    """Images that can only be read in order. `limit` is --images."""

    name: str
    rows: Any
    """An IterableDataset with the one column `column`, undecoded."""
    column: str
    held_out: frozenset[bytes]
    """Hashes of the images that training must not see."""
    limit: int | None = None

    def first(self, n: int | None) -> "StreamedSource":
        """The same source with at most `n` different images, over all processes."""
        return replace(self, limit=n)

    def reader(self, rank: int, world: int, state: Any = None) -> "Reader":
        """The share of process `rank`, from the start or from a Reader's `state`."""
        return Reader(self, rank, world, state)


class Reader:
    """The endless rows of one process; after the last row it begins again."""

    def __init__(self, source: StreamedSource, rank: int, world: int, state: Any) -> None:
        self._source, self._rank, self._world = source, rank, world
        self._epoch, self._n_rows = 0, 0
        self._open(None)
        if state:
            self._epoch, self._n_rows = state["epoch"], state["n_rows"]
            self._open(state["rows"])

    def take(self, n: int) -> list[bytes]:
        """The bytes of the next `n` images ("" bytes where a row has none)."""
        found: list[bytes] = []
        while len(found) < n:
            row = next(self._left, None) if self._may_read() else None
            if row is None:
                self._begin_again()
                continue
            content = _content(row[self._source.column])
            if _digest(content) not in self._source.held_out:
                self._n_rows += 1
                found.append(content)
        return found

    def state(self) -> dict[str, Any]:
        """JSON: where the next row is."""
        return {"epoch": self._epoch, "n_rows": self._n_rows, "rows": self._rows.state_dict()}

    def _open(self, state: Any) -> None:
        from datasets.distributed import split_dataset_by_node

        self._rows = split_dataset_by_node(self._source.rows, self._rank, self._world)
        if state:
            self._rows.load_state_dict(state)
        self._left: Iterator[Any] = iter(self._rows)

    def _may_read(self) -> bool:
        limit = self._source.limit
        return limit is None or self._n_rows * self._world + self._rank < limit

    def _begin_again(self) -> None:
        if not self._n_rows:
            raise ValueError(
                f"--data {self._source.name}: process {self._rank} finds no training images in its "
                "share; launch fewer processes, or hold out fewer with --eval-images."
            )
        self._epoch, self._n_rows = self._epoch + 1, 0
        self._open(None)


@dataclass(frozen=True)
class HeldOutImages:
    """The held-out images, kept in memory as files."""

    contents: tuple[bytes, ...]

    def load(self, number: int) -> Image.Image:
        """Image `number`, opened."""
        return open_content(self.contents[number])


def streamed(data: str, n_eval: int) -> tuple[StreamedSource, ImageSource]:
    """The training rows of a streamed dataset, and its first `n_eval` images, held out."""
    import datasets

    rows = open_rows(data, streaming=True)
    column = image_column(rows.features, data)
    rows = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    contents = tuple(_content(row[column]) for row in rows.take(n_eval))
    source = StreamedSource(
        f"{data}, streamed", rows, column, frozenset(_digest(one) for one in contents)
    )
    held_out = HeldOutImages(contents)
    n = np.arange(len(contents))
    return source, ImageSource(f"{data}, its first {len(n)} images", held_out.load, n)


def open_content(content: bytes, enough: Any = None) -> Image.Image:
    """The image in a row's bytes."""
    if not content:
        raise ImageError("A row holds no image.")
    return open_image(content, enough)


def _content(cell: Any) -> bytes:
    """A cell's bytes; those of a file that the dataset's own script named are read from there."""
    if cell is None:
        return b""
    if cell["bytes"] or not cell["path"]:
        return cell["bytes"] or b""
    from datasets.utils.file_utils import xopen

    try:
        with xopen(cell["path"], "rb") as file:
            return file.read()
    except OSError:
        return b""


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
