"""Hugging Face datasets: map-style ones as images by number, streamed ones row by row.

Knows `datasets`: the Hub (hf:user/name[:split]), folders of save_to_disk, image and label columns (#COLUMN
after either says which holds the images), splitting by node and the state of a stream. Of a streamed dataset
there is no access by number: a Reader hands out the rows in their stored order and says where it stands. Its
first `n_eval` images are held out, by content: training skips every row with the same bytes.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sae.errors import ImageError
from sae.images import open_image
from training.data.sources.identity import of_content
from training.data.sources.image_source import Enough, ImageSource


def is_dataset(data: str) -> bool:
    """Whether `data` names a Hugging Face dataset."""
    folder = Path(without_column(data)[0])
    return data.startswith("hf:") or any(
        (folder / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json")
    )


def without_column(data: str) -> tuple[str, str]:
    """The dataset, and the column of images that `data` asks for (hf:user/name:split#COLUMN), "" for none."""
    if Path(data).exists():
        return data, ""
    name, _, column = data.partition("#")
    return name, column


def dataset(data: str) -> tuple[ImageSource, int]:
    """All images of a dataset, and how many rows it has."""
    rows = open_rows(data, streaming=False)
    image = image_column(rows.features, data)
    label = label_column(rows.features, data)
    kept = [image, label] if label else [image]
    images = DatasetImages(data, _undecoded(rows.select_columns(kept), image), image, label)
    source = ImageSource(
        data,
        images.load,
        label=images.label,
        can_shrink=True,
        image_name="row {}".format,
        content=images.content,
    )
    return source, len(rows)


@dataclass(frozen=True)
class DatasetImages:
    """The rows of a map-style dataset."""

    name: str
    rows: Any
    column: str
    label_column: str | None = None

    def load(self, number: int, enough: Enough | None = None) -> Image.Image:
        """The image of row `number`; ImageError that names the row."""
        cell = self.rows[number][self.column]
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise ImageError(f"Row {number} of {self.name} holds no image.")
        try:
            return open_image(cell["bytes"] or cell["path"], enough)
        except ImageError as error:
            raise ImageError(f"row {number} of {self.name}: {error}") from error

    def content(self, number: int) -> str:
        """Size and hash of row `number`'s image; "" if it holds none."""
        content = _content(self.rows[number][self.column])
        return of_content(content) if content else ""

    def label(self, number: int) -> str:
        """The class of row `number` as text; "" where it has none, or more than one."""
        if self.label_column is None:
            return ""
        value = self.rows.select_columns(self.label_column)[number][self.label_column]
        return label_text(self.rows.features[self.label_column], value)


def label_text(feature: Any, value: Any) -> str:
    """A label as text: the name of its class where the column knows it.

    "" for none: a missing one, a number below 0 (which stands for one that is not told), NaN, and a
    list that holds not exactly one.
    """
    if isinstance(value, list | tuple):
        inner = getattr(feature, "feature", feature)
        return label_text(inner, value[0]) if len(value) == 1 else ""
    if value is None or value != value:
        return ""
    names = getattr(feature, "names", None)
    if names is not None:
        return str(names[value]) if 0 <= value < len(names) else ""
    if isinstance(value, int | float) and value < 0:
        return ""
    return str(value)


def label_column(features: Any, data: str) -> str | None:
    """The column that holds the classes: label or labels, the finest of several, or the only one.

    Says which was taken where there is more than one; None where there is none.
    """
    import datasets

    def holds_classes(kind: Any) -> bool:
        return isinstance(getattr(kind, "feature", kind), datasets.ClassLabel)

    known = [name for name in ("label", "labels") if name in features]
    known += [name for name, kind in features.items() if holds_classes(kind) and name not in known]
    if not known:
        return None
    fine = [name for name in known if "fine" in name and known[0] not in ("label", "labels")]
    chosen = (fine or known)[0]
    if len(known) > 1:
        sys.stderr.write(f"--data {data}: classes are column {chosen} of {', '.join(known)}\n")
    return chosen


def open_rows(data: str, *, streaming: bool) -> Any:
    """The dataset behind --data; OSError (one line) if it cannot be read."""
    import datasets

    try:
        folder = without_column(data)[0]
        if folder.startswith("hf:"):
            name, _, part = folder.removeprefix("hf:").partition(":")
            return datasets.load_dataset(name, split=part or "train", streaming=streaming)
        rows = datasets.load_from_disk(folder)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            f"--data {data}: the dataset could not be read: {reason} Check its name and split, "
            "your network and, if it is private, `hf auth login`."
        ) from error
    if isinstance(rows, datasets.DatasetDict):
        rows = rows["train"] if "train" in rows else next(iter(rows.values()))
    return rows.to_iterable_dataset() if streaming else rows


def image_column(features: Any, data: str) -> str:
    """The column that holds images: the one that `data` asks for, the one called image, or else the first.

    Says which of several was taken, and how to take another one. ValueError if there is none of that name.
    """
    import datasets

    columns = [n for n, kind in (features or {}).items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise ValueError(
            f"--data {data}: no image column among {', '.join(features or ['unknown columns'])}."
        )
    name, asked = without_column(data)
    if asked and asked not in columns:
        raise ValueError(
            f"--data {data}: {asked!r} is no column of images; there are {', '.join(columns)}."
        )
    if asked:
        return asked
    chosen = "image" if "image" in columns else columns[0]
    if len(columns) > 1:
        other = next(column for column in columns if column != chosen)
        sys.stderr.write(
            f"--data {data}: images are column {chosen} of {', '.join(columns)}; for another one give "
            f"--data '{name}#{other}'\n"
        )
    return chosen


def _undecoded(rows: Any, column: str) -> Any:
    import datasets

    return rows.cast_column(column, datasets.Image(decode=False))


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
    local: bool = False
    """Whether the rows lie on this machine, so that reading them again costs little."""

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
        self._hash, self._whole = "", ""
        self._open(None)
        if state:
            self._go_on(state)

    def take(self, n: int) -> list[bytes]:
        """The bytes of the next `n` images ("" bytes where a row has none)."""
        contents: list[bytes] = []
        while len(contents) < n:
            row = next(self._left, None) if self._may_read() else None
            if row is None:
                self._begin_again()
                continue
            content = _content(row[self._source.column])
            if _digest(content) not in self._source.held_out:
                self._n_rows += 1
                self._hash = _chained(self._hash, content)
                contents.append(content)
        return contents

    def state(self) -> dict[str, Any]:
        """JSON: where the next row is, and a hash of the rows before it and of the last whole walk."""
        rows = self._rows.state_dict()
        where = {"epoch": self._epoch, "n_rows": self._n_rows, "rows": rows}
        return {**where, "hash": self._hash, "whole": self._whole}

    def _go_on(self, state: dict[str, Any]) -> None:
        """From a state. Rows of this machine are read anew up to there, for their hash; ValueError if they
        are other ones. Those of the Hub are compared when the walk is over."""
        known, n = state.get("hash"), state["n_rows"]
        if known and self._source.local:
            try:
                self.take(n)
            except ValueError:
                self._hash = ""
            if (self._epoch, self._n_rows, self._hash) != (0, n, known):
                raise ValueError(
                    f"--data {self._source.name}: its first {n} rows are not those that the run was trained "
                    "on; put them back, or start in another --out."
                )
        else:
            self._open(state["rows"])
        self._epoch, self._n_rows = state["epoch"], n
        self._hash, self._whole = known or "", state.get("whole", "")

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
        if self._whole and self._hash and self._whole != self._hash:
            sys.stderr.write(
                f"warning: --data {self._source.name}: its rows are other ones than when it was read before\n"
            )
        self._whole = self._hash
        self._epoch, self._n_rows, self._hash = self._epoch + 1, 0, ""
        self._open(None)


@dataclass(frozen=True)
class HeldOutImages:
    """The held-out images, kept in memory as files."""

    contents: tuple[bytes, ...]

    def load(self, number: int) -> Image.Image:
        """Image `number`, opened."""
        return open_content(self.contents[number])

    def content(self, number: int) -> str:
        """Size and hash of image `number`."""
        return of_content(self.contents[number])


def streamed(data: str, n_eval: int) -> tuple[StreamedSource, ImageSource]:
    """The training rows of a streamed dataset, and its first `n_eval` images, held out."""
    import datasets

    rows = open_rows(data, streaming=True)
    column = image_column(rows.features, data)
    rows = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    contents = tuple(_content(row[column]) for row in rows.take(n_eval))
    place = without_column(data)[0].removeprefix("hf:")
    source = StreamedSource(
        f"{data}, streamed",
        rows,
        column,
        frozenset(_digest(one) for one in contents),
        local=any(Path(name).exists() for name in (place, place.rpartition(":")[0]) if name),
    )
    held_out = HeldOutImages(contents)
    n = np.arange(len(contents))
    name = f"{data}, its first {len(n)} images"
    named: dict[str, Any] = {"image_name": "row {}".format, "content": held_out.content}
    return source, ImageSource(name, held_out.load, n, **named)


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


def _chained(before: str, content: bytes) -> str:
    """A hash of all rows so far, of the one before and the next row."""
    return hashlib.blake2b(before.encode() + _digest(content), digest_size=16).hexdigest()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
