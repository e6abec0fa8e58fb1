"""Map-style Hugging Face datasets as images by number.

Knows `datasets`: the Hub (hf:user/name[:split]), folders of save_to_disk, image and label columns.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sae.images import ImageError, open_image
from training.data.sources.image_source import Enough, ImageSource


def is_dataset(data: str) -> bool:
    """Whether `data` names a Hugging Face dataset."""
    folder = Path(data)
    return data.startswith("hf:") or any(
        (folder / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json")
    )


def dataset(data: str) -> tuple[ImageSource, int]:
    """All images of a dataset, and how many rows it has."""
    rows = open_rows(data, streaming=False)
    image = image_column(rows.features, data)
    kept = [image, *(name for name in rows.features if name in ("label", "labels"))]
    found = DatasetImages(data, _undecoded(rows.select_columns(kept), image), image)
    return ImageSource(data, found.load, label=found.label, can_shrink=True), len(rows)


@dataclass(frozen=True)
class DatasetImages:
    """The rows of a map-style dataset."""

    name: str
    rows: Any
    column: str

    def load(self, number: int, enough: Enough | None = None) -> Image.Image:
        """The image of row `number`."""
        cell = self.rows[number][self.column]
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise ImageError(f"Row {number} of {self.name} holds no image.")
        return open_image(cell["bytes"] or cell["path"], enough)

    def label(self, number: int) -> str:
        """The text of row `number` in the column label or labels."""
        for name in ("label", "labels"):
            if name in self.rows.features:
                value = self.rows.select_columns(name)[number][name]
                names = getattr(self.rows.features[name], "int2str", str)
                return "" if value is None else names(value)
        return ""


def open_rows(data: str, *, streaming: bool) -> Any:
    """The dataset behind --data; OSError (one line) if it cannot be read."""
    import datasets

    try:
        if data.startswith("hf:"):
            name, _, part = data.removeprefix("hf:").partition(":")
            return datasets.load_dataset(name, split=part or "train", streaming=streaming)
        rows = datasets.load_from_disk(data)
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
    """The first column that holds images."""
    import datasets

    for name, kind in (features or {}).items():
        if isinstance(kind, datasets.Image):
            return name
    raise ValueError(
        f"--data {data}: no image column among {', '.join(features or ['unknown columns'])}."
    )


def _undecoded(rows: Any, column: str) -> Any:
    import datasets

    return rows.cast_column(column, datasets.Image(decode=False))
