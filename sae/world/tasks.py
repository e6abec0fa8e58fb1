"""The bundled tasks: classes, their base/novel split, and pictures composed live from the world.

Knows the emoji world's composer and what each task tests; knows nothing of models. Each task is
hard for the bundled CLIP for a different cause. The same task, split and seed give the same pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from sae.world.backgrounds import BACKGROUNDS, paint_background
from sae.world.scenes import (
    ANGLES,
    OBJECT_SIZES,
    SIZE,
    TRAINING_STYLES,
    Scene,
    SceneObject,
    compose,
    kind_names,
    kinds,
    sprite,
)

Rng = np.random.Generator
SPLITS = ("base", "novel")
WORLD_TEMPLATES = ("{}", "a picture of {}", "a photo of {}", "there is {}", "an image of {}")
HELD_OUT_SEED = 1_000_003
"""Training and few-shot pictures draw from seeds below this, every held-out figure from seeds at or above."""
MAX_PICTURES = 20_000
"""Pictures of a split that are composed at once: half a gigabyte."""


class Examples(NamedTuple):
    """Labelled pictures of one split."""

    images: UInt8[np.ndarray, "images size size 3"]
    """uint8 (n, SIZE, SIZE, 3)."""
    labels: Int64[np.ndarray, " images"]
    """int64 (n,): numbers into the split's class names."""

    def pictures(self) -> list[Image.Image]:
        """The same as Pillow pictures."""
        return [Image.fromarray(image) for image in self.images]


@dataclass(frozen=True)
class Task:
    """A classification task of the emoji world."""

    name: str
    title: str
    cause: str
    """Why zero-shot falls short here, in a newcomer's words."""
    base: tuple[str, ...]
    """Classes that heads are trained on."""
    novel: tuple[str, ...]
    """Classes that no head sees in training."""
    templates: tuple[str, ...]
    start: str
    """Words that learned text context begins with."""
    lead: str
    """Fixed words between learned context and class name."""
    draw: Callable[[Rng, str], UInt8[np.ndarray, "size size 3"]]
    """A picture, uint8 (SIZE, SIZE, 3), of a class."""

    def classes(self, split: str) -> tuple[str, ...]:
        """The class names of "base" or "novel"."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: expected base or novel")
        return self.base if split == "base" else self.novel

    def few_shot(self, split: str, shots: int, seed: int) -> Examples:
        """`shots` training pictures of every class of a split; ValueError for too many."""
        names = self.classes(split)
        _check("shots", shots * len(names), MAX_PICTURES)
        rng = _generator(self.name, split, seed)
        labels = np.repeat(np.arange(len(names)), shots)
        return Examples(np.stack([self.draw(rng, names[label]) for label in labels]), labels)

    def test(self, split: str, n: int, seed: int = 0) -> Examples:
        """`n` pictures that no training saw, classes in turn; ValueError for too many."""
        names = self.classes(split)
        _check("test pictures", n, MAX_PICTURES)
        rng = _generator(self.name, split, HELD_OUT_SEED + seed)
        labels = np.arange(n) % len(names)
        return Examples(np.stack([self.draw(rng, names[label]) for label in labels]), labels)


def task(name: str) -> Task:
    """A bundled task by name; ValueError lists what there is."""
    tasks = {each.name: each for each in TASKS}
    if name not in tasks:
        raise ValueError(f"there is no bundled task {name!r}, expected one of {', '.join(tasks)}")
    return tasks[name]


def _check(what: str, n: int, most: int) -> None:
    if not 0 < n <= most:
        raise ValueError(f"{what}: {n} pictures of a split were asked for, 1 to {most:,} are drawn")


def _generator(name: str, split: str, seed: int) -> Rng:
    return np.random.Generator(np.random.PCG64([seed, SPLITS.index(split), *name.encode()]))


def _draw_fluent(rng: Rng, class_name: str) -> np.ndarray:
    """One object in the style that the CLIP was not trained on."""
    return compose(_scene(rng, [class_name], ("fluent",))).image


COARSE = 3
"""How much coarser a "large" texture is."""
_NUMBERS = {"one": 1, "two": 2, "three": 3}


def _draw_wider(rng: Rng, class_name: str) -> np.ndarray:
    """One, two or three different objects of one realm, as the name says."""
    number, realm = class_name.split()
    of_realm = [kind.name for kind in kinds() if kind.realm == realm]
    chosen = rng.choice(len(of_realm), _NUMBERS[number], replace=False)
    return compose(_scene(rng, [of_realm[i] for i in chosen], TRAINING_STYLES)).image


def _draw_texture(rng: Rng, class_name: str) -> np.ndarray:
    """A texture at its usual scale ("small") or three times as coarse ("large"), one small object on it."""
    scale, ground = class_name.split()
    seed = int(rng.integers(2**32))
    if scale == "small":
        pixels = paint_background(ground, SIZE, seed)
    else:
        pixels = paint_background(ground, SIZE // COARSE, seed)
        pixels = pixels.repeat(COARSE, axis=0).repeat(COARSE, axis=1)
    picture, side = Image.fromarray(pixels), OBJECT_SIZES["small"]
    kind, style = kind_names()[rng.integers(len(kind_names()))], TRAINING_STYLES[rng.integers(2)]
    item = sprite(kind, style).resize((side, side), Image.Resampling.LANCZOS)
    x, y = (int(v) for v in rng.integers(0, SIZE - side, 2, endpoint=True))
    picture.paste(item, (x, y), item)
    return np.asarray(picture)


def _scene(rng: Rng, names: list[str], styles: tuple[str, ...]) -> Scene:
    """The named objects at random, hardly overlapping, on a random background."""
    objects: list[SceneObject] = []
    for number, name in enumerate(names):
        size = "small" if len(names) == 3 and number else str(rng.choice(list(OBJECT_SIZES)))
        x, y = _free_place(rng, objects, OBJECT_SIZES[size] // 2)
        style, angle = str(rng.choice(styles)), int(rng.choice(ANGLES))
        objects.append(SceneObject(name, style, x, y, size, angle))
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    return Scene(background, tuple(objects), int(rng.integers(2**32)))


def _free_place(rng: Rng, taken: list[SceneObject], half: int) -> tuple[int, int]:
    """The centre that overlaps the others least, of 24 tries."""

    def overlap(x: int, y: int) -> int:
        reach = [half + OBJECT_SIZES[other.size] // 2 for other in taken]
        return sum(
            max(0, r - abs(x - other.x)) * max(0, r - abs(y - other.y))
            for r, other in zip(reach, taken, strict=True)
        )

    tries = rng.integers(half, SIZE - half, (24, 2))
    return min(((int(x), int(y)) for x, y in tries), key=lambda place: overlap(*place))


_KINDS = kind_names()[::3]
_SCALED = ("small", "large")


def _scaled(*grounds: str) -> tuple[str, ...]:
    return tuple(f"{scale} {ground}" for ground in grounds for scale in _SCALED)


def _counted(*realms: str) -> tuple[str, ...]:
    return tuple(f"{number} {realm}" for realm in realms for number in _NUMBERS)


TASKS: tuple[Task, ...] = (
    Task(
        name="fluent",
        title="A drawing style it never saw",
        cause="The pictures are drawn in a third style; the model learned from two others.",
        base=_KINDS[: len(_KINDS) // 2],
        novel=_KINDS[len(_KINDS) // 2 :],
        templates=tuple(text.replace("{}", "a {}") for text in WORLD_TEMPLATES),
        start="a photo of a",
        lead="of a",
        draw=_draw_fluent,
    ),
    Task(
        name="wider",
        title="Wider words and numbers",
        cause="The class names use words that captions rarely had (animal) or never had (two).",
        base=_counted("animal", "food", "object"),
        novel=_counted("plant", "vehicle"),
        templates=WORLD_TEMPLATES,
        start="a photo of a",
        lead="of",
        draw=_draw_wider,
    ),
    Task(
        name="texture",
        title="Fine and coarse textures",
        cause="The classes differ in the grain of the ground, for which the model has no words.",
        base=_scaled("wood", "night", "stripes", "checkers", "dots", "snow"),
        novel=_scaled("grass", "sand", "water", "sky", "brick"),
        templates=("an object on {}", "a picture of an object on {}", "a photo of an object on {}"),
        start="a photo of an",
        lead="object on",
        draw=_draw_texture,
    ),
)
