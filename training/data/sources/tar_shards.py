"""WebDataset tar shards as images by number, read in place: nothing is ever extracted to disk.

Knows tar headers (through tarfile) and WebDataset's naming: the files `a/b.jpg`, `a/b.cls`,
`a/b.json` are one sample with the key `a/b`. One pass over the headers notes where each image
begins, after which any image is one bounded read at an offset.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from PIL import Image

from sae.errors import ImageError
from sae.images import open_image
from training.data.sources.folder import SUFFIXES, is_hidden
from training.data.sources.identity import of_content
from training.data.sources.image_source import Enough, ImageSource

MAX_SHARDS = 100_000
MAX_IMAGE_BYTES = 256 << 20
MAX_LABEL_BYTES = 1024
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_tar_data(data: str) -> bool:
    """Whether `data` names tar shards: a .tar file, a brace pattern of them, or their folder."""
    if data.endswith(".tar"):
        return True
    folder = Path(data)
    return folder.is_dir() and any(folder.glob("*.tar"))


def tar_shards(data: str) -> tuple[ImageSource, int]:
    """All images of the shards, in order, and how many there are."""
    images = TarImages.open(shard_paths(data))
    if not len(images.shard):
        raise FileNotFoundError(
            f"--data {data}: no images in {len(images.paths)} tar shards; looked for members with "
            f"the extensions {', '.join(sorted(SUFFIXES))}."
        )
    source = ImageSource(
        data,
        images.load,
        label=images.label,
        can_shrink=True,
        image_name=images.name,
        content=images.content,
    )
    return source, len(images.shard)


@dataclass(frozen=True)
class TarImages:
    """Where every image lies: `shard`, `offset` and `size` (n,), and its label."""

    paths: tuple[Path, ...]
    shard: Int64[np.ndarray, " images"]
    offset: Int64[np.ndarray, " images"]
    size: Int64[np.ndarray, " images"]
    labels: tuple[str, ...]
    members: tuple[str, ...]

    @classmethod
    def open(cls, paths: list[Path]) -> "TarImages":
        """Read the headers of all shards."""
        rows, labels, members = [], [], []
        for number, path in enumerate(paths):
            texts: dict[str, str] = {}
            keys = []
            for member, text in _members(path):
                key, kind = _key(member.name)
                if kind == ".cls":
                    texts[key] = text
                elif kind in SUFFIXES and not _is_hidden(member.name):
                    rows.append((number, member.offset_data, member.size))
                    keys.append(key)
                    members.append(member.name)
            labels += [texts.get(key, "") for key in keys]
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        columns = table[:, 0], table[:, 1], table[:, 2]
        return cls(tuple(paths), *columns, tuple(labels), tuple(members))

    def load(self, number: int, enough: Enough | None = None) -> Image.Image:
        """Image `number`, opened."""
        try:
            return open_image(self._read(number), enough)
        except ImageError as error:
            raise ImageError(
                f"{self.paths[self.shard[number]]}, {self.members[number]}: {error}"
            ) from error

    def _read(self, number: int) -> bytes:
        path, size = self.paths[self.shard[number]], int(self.size[number])
        if size > MAX_IMAGE_BYTES:
            raise ImageError(f"it has {size} bytes, over {MAX_IMAGE_BYTES}.")
        try:
            with path.open("rb") as file:
                file.seek(int(self.offset[number]))
                return file.read(size)
        except OSError as error:
            raise ImageError(f"it could not be read: {error.strerror}.") from error

    def name(self, number: int) -> str:
        """Shard and member of image `number`."""
        return f"{self.paths[self.shard[number]].name}:{self.members[number]}"

    def content(self, number: int) -> str:
        """What tells image `number` by what it holds; "" if it cannot be read."""
        try:
            content = self._read(number)
        except ImageError:
            return ""
        return of_content(content)

    def label(self, number: int) -> str:
        """What the sample's .cls member says."""
        return self.labels[number]


def shard_paths(data: str) -> list[Path]:
    """The files behind a shard, a pattern or a folder; FileNotFoundError if one is not there."""
    folder = Path(data)
    paths = sorted(folder.glob("*.tar")) if folder.is_dir() else [Path(p) for p in expand(data)]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"--data {data}: there is no shard {path}. Check the pattern.")
    return paths


def expand(pattern: str) -> list[str]:
    """WebDataset's braces: a-{000..002}.tar is a-000.tar, a-001.tar, a-002.tar."""
    match = _RANGE.search(pattern)
    if not match:
        return [pattern]
    low, high = match.groups()
    if not int(low) <= int(high) or int(high) - int(low) >= MAX_SHARDS:
        raise ValueError(
            f"--data {pattern}: the range {match[0]} must rise and hold at most {MAX_SHARDS} shards."
        )
    heads = [f"{n:0{len(low)}d}" for n in range(int(low), int(high) + 1)]
    tails = expand(pattern[match.end() :])
    if len(heads) * len(tails) > MAX_SHARDS:
        raise ValueError(f"--data {pattern}: more than {MAX_SHARDS} shards.")
    return [pattern[: match.start()] + head + tail for head in heads for tail in tails]


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """The regular files of a shard; with the text of the small .cls ones."""
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                shard.members = []  # type: ignore[attr-defined]  # or tarfile keeps every header
                if not member.isreg():
                    continue
                text = ""
                small = member.name.lower().endswith(".cls") and member.size <= MAX_LABEL_BYTES
                if small and (file := shard.extractfile(member)):
                    text = label_of(file.read())
                yield member, text
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{path}: found no whole, uncompressed tar file ({error}); expected a WebDataset "
            "shard. Unpack .tar.gz to .tar, or download it again."
        ) from error


def label_of(content: bytes) -> str:
    """What a .cls member says; "" for none: nothing, NaN, or a number below 0, which stands for no class."""
    text = content.decode("utf-8-sig", "replace").strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return text if number >= 0 else ""


def _is_hidden(member: str) -> bool:
    return any(is_hidden(part) for part in member.split("/") if part != ".")


def _key(name: str) -> tuple[str, str]:
    """WebDataset's key and extension, parted by the first dot of the file name: x.seg.png is no
    image but the extension seg.png of x."""
    folder, _, file = name.rpartition("/")
    key, dot, kind = file.partition(".")
    return f"{folder}/{key}", (dot + kind).lower()
