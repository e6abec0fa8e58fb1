"""Images by number, the endless walk over them, their split, and the scenes of the emoji world.

Knows numbers, orders and labels. Knows nothing of backbones or activations. Image number i
of a source is always the same image, so a run can be taken up again anywhere.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Int, Int64
from PIL import Image

from sae.world.scenes import Scene, compose
from sae.world.tasks import HELD_OUT_SEED
from training.world.generator import sample_scene

Enough = Callable[[tuple[int, int]], tuple[int, int]]
"""Of a picture of (width, height), the size that is enough to decode."""
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
    eighth. `label(number)` is the image's class as text, "" if it has none. Where `image_name` and
    `content` are given, they tell an image by name and by what it holds ("" if it cannot be read), so
    that the same images are found again when others come or go.
    """

    name: str
    load: Callable[..., Image.Image]
    numbers: Int[np.ndarray, " images"] | None = None
    label: Callable[[int], str] = no_label
    can_shrink: bool = False
    image_name: Callable[[int], str] | None = None
    content: Callable[[int], str] | None = None

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
def order(n: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """The order of n things in round `epoch` of a walk."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def split(
    whole: ImageSource, n: int, n_eval: int, data: str, kept: Collection[str] | None = None
) -> tuple[ImageSource, ImageSource]:
    """Training and held-out images: 5 % of the `n` (at most `n_eval`, at least two of four) are
    held out, the same ones in every run; or, of names that a run `kept` out, those that are there."""
    if n < 2:
        raise ValueError(
            f"--data {data} holds {n} images; training needs at least 2, one of them held out."
        )
    if kept and whole.image_name:
        place = {name: at for at, name in enumerate(kept)}
        places = np.array([place.get(whole.image_name(i), -1) for i in range(n)])
        held_out = np.flatnonzero(places >= 0)
        held_out = held_out[np.argsort(places[held_out], kind="stable")]
        shuffled = np.random.default_rng(0).permutation(n)
        training = shuffled[places[shuffled] < 0]
        if not len(held_out) or not len(training):
            raise ValueError(
                f"--data {data}: of the {len(kept)} images that training held out, {len(held_out)} are "
                f"there, beside {len(training)} others; give the folder that it was trained on."
            )
    else:
        shuffled = np.random.default_rng(0).permutation(n)
        n_held_out = min(n_eval, max(1 if n < 4 else 2, int(HELD_OUT_SHARE * n)))
        held_out, training = shuffled[:n_held_out], shuffled[n_held_out:]
    return (
        replace(whole, name=f"{whole.name}, {len(training)} images", numbers=training),
        replace(whole, name=f"{whole.name}, {len(held_out)} held-out images", numbers=held_out),
    )


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
