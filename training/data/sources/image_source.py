"""Images by number, and the endless walk over them: the files of a folder, the scenes of the emoji world.

Knows numbers, orders, labels, paths and suffixes. Knows nothing of backbones or activations. Image number i
of a source is always the same image, so a run can be taken up again anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from sae.images import open_image
from sae.world.scenes import Scene, compose
from sae.world.tasks import HELD_OUT_SEED
from training.world.generator import sample_scene

Enough = Callable[[tuple[int, int]], tuple[int, int]]
"""Of a picture of (width, height), the size that is enough to decode."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".jp2"}
)
HELD_OUT_SHARE = 0.05
_FAR = 1 << 40
"""Further than any run walks through an endless source."""


def no_label(_number: int) -> str:
    """Images without labels."""
    return ""


@dataclass(frozen=True)
class ImageSource:
    """Images by number.

    `name` says what they are, for training.json. `numbers` are the images that may be used, or None
    for as many as one likes. `load(number)` opens one, and raises ImageError if it cannot; where
    `can_shrink` it also takes `enough=`, and then may decode large JPEGs at a half, a quarter or an
    eighth. `label(number)` is the image's class as text, "" if it has none.
    """

    name: str
    load: Callable[..., Image.Image]
    numbers: np.ndarray | None = None
    label: Callable[[int], str] = no_label
    can_shrink: bool = False

    @property
    def all(self) -> list[int]:
        """The numbers of all images; ValueError if there is no end to them."""
        if self.numbers is None:
            raise ValueError(f"{self.name} has no end; say how many of its images to take.")
        return self.numbers.tolist()

    def at(self, place: int, seed: int) -> int:
        """The image at a place of an endless walk that reshuffles after every full round."""
        if self.numbers is None:
            return place
        n = len(self.numbers)
        return int(self.numbers[order(n, seed, place // n)[place % n]])

    def substitute(self, place: int, seed: int, attempt: int) -> int:
        """The image that stands in at `place` for one that cannot be read (attempts from 1)."""
        if self.numbers is None:
            return place + attempt * _FAR
        return self.at(place, seed + attempt * _FAR)

    def times_before(self, place: int) -> int:
        """How often the walk has been through all images when it comes to `place`."""
        return 0 if self.numbers is None else place // len(self.numbers)

    def all_numbers(self) -> list[int]:
        """The numbers of all images; ValueError where there is no end of them."""
        if self.numbers is None:
            raise ValueError(f"{self.name} has no end; choose a number of images with first(n).")
        return self.numbers.tolist()

    def first(self, n: int | None) -> "ImageSource":
        """The same source with at most `n` different images."""
        if n is None:
            return self
        numbers = np.arange(n) if self.numbers is None else self.numbers[:n]
        return replace(self, numbers=numbers)

    def for_size(self, enough: Enough) -> "ImageSource":
        """The same source, for readers that need pictures no larger than `enough` says."""
        return replace(self, load=partial(self.load, enough=enough)) if self.can_shrink else self


@lru_cache(maxsize=4)
def order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of n things in round `epoch` of a walk."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def split(whole: ImageSource, n: int, n_eval: int, data: str) -> tuple[ImageSource, ImageSource]:
    """Training and held-out images: 5 % of the `n` (at most `n_eval`, at least two of four) are
    held out, the same ones in every run."""
    if n < 2:
        raise ValueError(
            f"--data {data} holds {n} images; training needs at least 2, one of them held out."
        )
    shuffled = np.random.default_rng(0).permutation(n)
    n_held_out = min(n_eval, max(1 if n < 4 else 2, int(HELD_OUT_SHARE * n)))
    held_out, training = shuffled[:n_held_out], shuffled[n_held_out:]
    return (
        replace(whole, name=f"{whole.name}, {len(training)} images", numbers=training),
        replace(whole, name=f"{whole.name}, {n_held_out} held-out images", numbers=held_out),
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
    images = ImageFiles(root, files)
    return ImageSource(data, images.load, label=images.label, can_shrink=True), len(files)


@dataclass(frozen=True)
class Scenes:
    """Endless scenes of one seed; a scene's label is its first object's kind."""

    seed: int

    def load(self, number: int) -> Image.Image:
        """Scene `number`, drawn."""
        return Image.fromarray(compose(self._scene(number)).image)

    def label(self, number: int) -> str:
        """The kind of scene `number`'s first object."""
        return self._scene(number).objects[0].kind

    def _scene(self, number: int) -> Scene:
        return sample_scene(np.random.default_rng((self.seed, number)))


def world(seed: int, n_eval: int) -> tuple[ImageSource, ImageSource]:
    """Endless training scenes and `n_eval` held-out ones, from seeds that never meet."""
    if not 0 <= seed < HELD_OUT_SEED:
        raise ValueError(f"--seed must be in 0 … {HELD_OUT_SEED - 1} with --data world: {seed}.")
    training, held_out = Scenes(seed), Scenes(HELD_OUT_SEED + seed)
    return (
        ImageSource(f"emoji world, seed {seed}", training.load, label=training.label),
        ImageSource(
            f"emoji world, {n_eval} held-out scenes",
            held_out.load,
            np.arange(n_eval),
            held_out.label,
        ),
    )
