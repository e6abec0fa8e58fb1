"""A folder of image files. Knows paths and suffixes; a file's label is its sub-folder's name."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sae.images import open_image
from training.data.sources.image_source import Enough, ImageSource

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".jp2"}
)


@dataclass(frozen=True)
class ImageFiles:
    """The files of a folder and all its sub-folders, in the order of their paths."""

    root: Path
    files: tuple[Path, ...]

    def load(self, number: int, enough: Enough | None = None) -> Image.Image:
        """File `number`, opened."""
        return open_image(self.files[number], enough)

    def label(self, number: int) -> str:
        """The name of the sub-folder that the file lies in, "" at the top."""
        parent = self.files[number].parent
        return "" if parent == self.root else parent.name


def folder(data: str) -> tuple[ImageSource, int]:
    """All images of a folder, and how many there are."""
    root = Path(data)
    if not root.is_dir():
        raise FileNotFoundError(
            f"--data {data}: no such folder. Give 'world', a folder of images or of .tar shards, "
            "a store of extract.py, or hf:user/name[:split]."
        )
    files = tuple(sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES))
    if not files:
        raise FileNotFoundError(
            f"--data {data}: no images in it; looked in all sub-folders for "
            f"{', '.join(sorted(SUFFIXES))}, and for .tar shards."
        )
    found = ImageFiles(root, files)
    return ImageSource(data, found.load, label=found.label, can_shrink=True), len(files)
