"""A folder of pictures as images by number: which files are pictures, and which class each belongs to.

The one lister of PatchLens, for training, extracting, indexing, prompts and measuring. It follows links, each
real folder once, so that no loop is endless and no picture is found twice through a linked folder; it leaves
out names that begin with a dot, `__MACOSX`, and the pictures that a run draws of itself. Knows paths,
suffixes and labels. Knows nothing of splits, backbones or activations.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from sae.errors import ImageError
from sae.images import open_image
from training.data.sources.identity import of_file
from training.data.sources.image_source import Enough, ImageSource

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".ppm", ".jp2"}
)
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Folders of these names part a data set, not its classes."""
DRAWN = frozenset({"curves.png", "exemplars.webp"})
"""Pictures that a run draws into its own folder."""
OF_A_RUN = ("training.json", "progress.jsonl", "training_images.jsonl")
"""Files that tell a run's folder."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of a person's pictures."""
    return name.startswith(".") or name == "__MACOSX"


def list_pictures(root: Path) -> list[Path]:
    """All pictures in `root` and its sub-folders, in the order of their paths."""
    pictures: list[Path] = []
    been: set[str] = set()
    for folder, folders, names in os.walk(root, onerror=_say_unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in been:
            folders.clear()
            continue
        been.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        own = DRAWN if any(mark in names for mark in OF_A_RUN) else frozenset()
        pictures += [
            Path(folder, name)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not is_hidden(name) and name not in own
        ]
    return sorted(pictures)


def _say_unreadable(error: OSError) -> None:
    sys.stderr.write(f"warning: {error.filename} was left out: {error.strerror}\n")


def labels_of(paths: Sequence[PurePath]) -> list[str]:
    """The class of each path that is relative to its root: its first folder that tells some of them apart.

    Folders that all share, and those that only say train or test, tell nothing; where no folder tells
    them apart, the innermost is the class. "" for a picture that lies above.
    """
    folders = [path.parts[:-1] for path in paths]
    for depth in range(max(map(len, folders), default=0)):
        names = [parts[depth] if depth < len(parts) else "" for parts in folders]
        if len(set(names)) > 1 and not {name.lower() for name in names} <= SPLITS:
            return names
    return [parts[-1] if parts else "" for parts in folders]


@dataclass(frozen=True)
class ImageFiles:
    """The files of a folder and all its sub-folders, in the order of their paths, and their labels."""

    root: Path
    files: tuple[Path, ...]
    labels: tuple[str, ...]

    def load(self, number: int, enough: Enough | None = None) -> Image.Image:
        """File `number`, opened; ImageError with its whole path."""
        try:
            return open_image(self.files[number], enough)
        except ImageError as error:
            raise ImageError(f"{self.files[number]}: {error}") from error

    def label(self, number: int) -> str:
        """The class of file `number`."""
        return printable(self.labels[number])

    def name(self, number: int) -> str:
        """The path of file `number` within the folder."""
        return self.files[number].relative_to(self.root).as_posix()

    def content(self, number: int) -> str:
        """What tells file `number` by what it holds; "" if it cannot be read."""
        return of_file(self.files[number])


def printable(name: str) -> str:
    """A file name as text that can be written anywhere: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def folder(data: str) -> tuple[ImageSource, int]:
    """All images of a folder, and how many there are."""
    root = Path(data)
    if not root.is_dir():
        raise FileNotFoundError(
            f"--data {data}: no such folder. Give 'world', a folder of images or of .tar shards, "
            "a store of extract.py, or hf:user/name[:split]."
        )
    files = list_pictures(root)
    if not files:
        raise FileNotFoundError(
            f"--data {data}: no images in it; looked in all sub-folders for "
            f"{', '.join(sorted(SUFFIXES))}, and for .tar shards."
        )
    labels = labels_of([path.relative_to(root) for path in files])
    images = ImageFiles(root, tuple(files), tuple(labels))
    source = ImageSource(
        data,
        images.load,
        label=images.label,
        can_shrink=True,
        image_name=images.name,
        content=images.content,
    )
    return source, len(files)
