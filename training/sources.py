"""Where training images come from: a folder, a Hugging Face dataset, or the emoji world.

Knows how to find, count, split and open images. Knows nothing of backbones or activations. Image
number i of a source is always the same image, so a run can be taken up again anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from sae.images import ImageError, open_image

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".jp2"}
)
HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class ImageSource:
    """Images by number.

    `name` says what they are, for training.json. `numbers` are the images that may be used, or None
    for as many as one likes. `load(number)` opens one, and raises ImageError if it cannot.
    """

    name: str
    load: Callable[[int], Image.Image]
    numbers: np.ndarray | None = None

    def at(self, position: int, seed: int) -> int:
        """The image at a position of an endless walk that reshuffles after every full round."""
        if self.numbers is None:
            return position
        n = len(self.numbers)
        return int(self.numbers[_order(n, seed, position // n)[position % n]])

    def first(self, n: int | None) -> "ImageSource":
        """The same source with at most `n` different images."""
        if n is None:
            return self
        numbers = np.arange(n) if self.numbers is None else self.numbers[:n]
        return replace(self, numbers=numbers)


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def open_source(data: str, *, seed: int, n_eval: int) -> tuple[ImageSource, ImageSource]:
    """The training images and the held-out images of `data`, which never share one.

    A folder or a dataset keeps 5 % of its images (at most `n_eval`, at least one) as held-out, the
    same ones in every run. The emoji world draws both from seeds that never meet.
    """
    if data == "world":
        return _world(seed, n_eval)
    name, load, n = _dataset(data) if _is_dataset(data) else _folder(data)
    if n < 2:
        raise ValueError(
            f"--data {data} holds {n} images; training needs at least 2, one of them held out."
        )
    order = np.random.default_rng(0).permutation(n)
    n_held_out = min(n_eval, max(1, int(HELD_OUT_SHARE * n)))
    held_out, training = order[:n_held_out], order[n_held_out:]
    return (
        ImageSource(f"{name}, {len(training)} images", load, training),
        ImageSource(f"{name}, {n_held_out} held-out images", load, held_out),
    )


def _world(seed: int, n_eval: int) -> tuple[ImageSource, ImageSource]:
    from sae.scenes import compose
    from training.world.generator import HELD_OUT_SEED, sample_scene

    def scenes(first_seed: int) -> Callable[[int], Image.Image]:
        def load(number: int) -> Image.Image:
            scene = sample_scene(np.random.default_rng((first_seed, number)))
            return Image.fromarray(compose(scene).image)

        return load

    if not 0 <= seed < HELD_OUT_SEED:
        raise ValueError(f"--seed must be in 0 … {HELD_OUT_SEED - 1} with --data world: {seed}.")
    held_out = ImageSource(
        f"emoji world, {n_eval} held-out scenes", scenes(HELD_OUT_SEED + seed), np.arange(n_eval)
    )
    return ImageSource(f"emoji world, seed {seed}", scenes(seed)), held_out


def _folder(data: str) -> tuple[str, Callable[[int], Image.Image], int]:
    folder = Path(data)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--data {data}: no such folder. Give 'world', a folder of images, or "
            "hf:user/name[:split]."
        )
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"--data {data}: no images in it; looked in all sub-folders for "
            f"{', '.join(sorted(SUFFIXES))}."
        )
    return data, lambda number: open_image(files[number]), len(files)


def _is_dataset(data: str) -> bool:
    folder = Path(data)
    return data.startswith("hf:") or any(
        (folder / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json")
    )


def _dataset(data: str) -> tuple[str, Callable[[int], Image.Image], int]:
    """A Hugging Face dataset of the Hub (hf:user/name[:split]) or of save_to_disk."""
    import datasets

    if data.startswith("hf:"):
        name, _, split = data.removeprefix("hf:").partition(":")
        rows = datasets.load_dataset(name, split=split or "train")
    else:
        rows = datasets.load_from_disk(data)
        if isinstance(rows, datasets.DatasetDict):
            rows = rows["train"] if "train" in rows else next(iter(rows.values()))
    columns = [n for n, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise ValueError(f"--data {data}: no image column among {', '.join(rows.features)}.")
    rows = rows.select_columns(columns[:1]).cast_column(columns[0], datasets.Image(decode=False))

    def load(number: int) -> Image.Image:
        cell = rows[number][columns[0]]
        if cell is None or not (cell["bytes"] or cell["path"]):
            raise ImageError(f"Row {number} of {data} holds no image.")
        return open_image(cell["bytes"] or cell["path"])

    return data, load, len(rows)
