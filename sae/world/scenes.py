"""The emoji world's composer: from a described scene to pixels, masks and labels.

Knows numpy, PIL and the bundled sprite sheet; knows nothing of models, captions or sampling.
A scene is one background and up to MAX_OBJECTS emoji objects; later objects lie over earlier ones.
The same scene always gives the same pixels.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from sae.world.backgrounds import BACKGROUNDS, paint_background

SIZE = 96
"""Width and height of a scene in pixels."""
OBJECT_SIZES = {"small": 32, "large": 46}
"""Longest side of an object in pixels."""
ANGLES = (-16, -8, 0, 8, 16)
"""Rotations an object may have, degrees counter-clockwise."""
MAX_OBJECTS = 3
_BUNDLED = Path(__file__).parents[1] / "bundled"


@dataclass(frozen=True)
class Kind:
    """An object kind with its place in the taxonomy: realm (animal) > group (mammal) > name (cat)."""

    name: str
    group: str
    realm: str


def _read_layout() -> dict:
    return json.loads((_BUNDLED / "sprites.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def kinds() -> tuple[Kind, ...]:
    """All object kinds, in the order of the sprite sheet."""
    rows = _read_layout()["kinds"]
    return tuple(
        Kind(row["name"], row["path"].split("/")[1], row["path"].split("/")[0]) for row in rows
    )


@lru_cache(maxsize=1)
def kind_names() -> tuple[str, ...]:
    """The names of all kinds, in the order of the sprite sheet."""
    return tuple(kind.name for kind in kinds())


@lru_cache(maxsize=1)
def _kind_numbers() -> dict[str, int]:
    return {name: number for number, name in enumerate(kind_names())}


STYLES = ("noto", "twemoji", "fluent")
"""Drawing styles: the first two are trained on, the third is held out."""
TRAINING_STYLES = STYLES[:2]


@dataclass(frozen=True)
class SceneObject:
    """One object: kind name, drawing style, centre (x, y) in pixels, size word and rotation."""

    kind: str
    style: str = "noto"
    x: int = SIZE // 2
    y: int = SIZE // 2
    size: str = "large"
    angle: int = 0

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, _kind_numbers())
        _one_of("style", self.style, STYLES)
        _one_of("size", self.size, OBJECT_SIZES)
        _one_of("angle", self.angle, ANGLES)
        for name, value in (("x", self.x), ("y", self.y)):
            if type(value) is not int or not 0 <= value < SIZE:
                raise ValueError(
                    f"Scene object {name}: got {value!r}, expected a whole number from 0 to {SIZE - 1}."
                )


@dataclass(frozen=True)
class Scene:
    """A background, its objects (bottom to top) and the seed of the background's texture."""

    background: str
    objects: tuple[SceneObject, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("background", self.background, BACKGROUNDS)
        if len(self.objects) > MAX_OBJECTS:
            raise ValueError(
                f"A scene holds at most {MAX_OBJECTS} objects, got {len(self.objects)}."
            )
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            raise ValueError(
                f"Scene seed: got {self.seed!r}, expected a whole number from 0 to {2**32 - 1}."
            )


class Rendered(NamedTuple):
    """A composed scene."""

    image: UInt8[np.ndarray, "size size 3"]
    """uint8 (SIZE, SIZE, 3)."""
    masks: Bool[np.ndarray, "objects size size"]
    """bool (n_objects, SIZE, SIZE): the visible pixels of each object."""


def compose(scene: Scene) -> Rendered:
    """Draw `scene`. About 0.5 ms; sprites are rotated and resized once per process."""
    image = paint_background(scene.background, SIZE, scene.seed)
    masks = np.zeros((len(scene.objects), SIZE, SIZE), dtype=bool)
    for number, item in enumerate(scene.objects):
        colour, alpha = _sprite(
            _kind_numbers()[item.kind], STYLES.index(item.style), item.size, item.angle
        )
        height, width = alpha.shape
        top, left = item.y - height // 2, item.x - width // 2
        rows = slice(max(top, 0), min(top + height, SIZE))
        columns = slice(max(left, 0), min(left + width, SIZE))
        part = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        cover = alpha[part]
        under = image[rows, columns].astype(np.uint16)
        image[rows, columns] = colour[part] + (under * (255 - cover)[..., None] // 255).astype(
            np.uint8
        )
        visible = cover > 127
        masks[:number, rows, columns] &= ~visible
        masks[number, rows, columns] = visible
    return Rendered(image, masks)


def patch_labels(
    masks: Bool[np.ndarray, "objects size size"], patch: int
) -> Float32[np.ndarray, "objects rows columns"]:
    """Share of each patch that each object covers: float32 (n_objects, SIZE/patch, SIZE/patch)."""
    n, grid = len(masks), SIZE // patch
    return masks.reshape(n, grid, patch, grid, patch).mean(axis=(2, 4), dtype=np.float32)


@lru_cache(maxsize=1)
def _sheet() -> tuple[Image.Image, dict]:
    with Image.open(_BUNDLED / "sprites.webp", formats=["WEBP"]) as sheet:
        return sheet.convert("RGBA"), _read_layout()


def sprite(kind: str, style: str = "noto") -> Image.Image:
    """The untransformed RGBA sprite of a kind, for pickers and legends."""
    sheet, layout = _sheet()
    cell, number = layout["cell"], _kind_numbers()[kind]
    x = number % layout["columns"] * cell
    y = (STYLES.index(style) * layout["rows_per_style"] + number // layout["columns"]) * cell
    return sheet.crop((x, y, x + cell, y + cell))


@cache
def _sprite(kind: int, style: int, size: str, angle: int) -> tuple[np.ndarray, np.ndarray]:
    """Premultiplied colour uint8 (h, w, 3) and alpha uint8 (h, w), resized and rotated."""
    side = OBJECT_SIZES[size]
    picture = sprite(kind_names()[kind], STYLES[style])
    picture = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    scale = side / _sheet()[1]["cell"]
    picture = picture.resize(
        [round(edge * scale) for edge in picture.size], Image.Resampling.LANCZOS
    )
    pixels = np.asarray(picture)
    alpha = pixels[..., 3]
    colour = (pixels[..., :3].astype(np.uint16) * alpha[..., None] // 255).astype(np.uint8)
    return colour, alpha


def scene_to_json(scene: Scene) -> str:
    """One line of JSON; `scene_from_json` gives the equal scene back."""
    return json.dumps(asdict(scene), separators=(",", ":"))


def scene_from_json(text: str) -> Scene:
    """Read a scene written by `scene_to_json`; ValueError says what is wrong."""
    try:
        fields = json.loads(text)
        objects = tuple(SceneObject(**item) for item in fields.pop("objects", ()))
        return Scene(objects=objects, **fields)
    except (TypeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"Not a scene: {error}. Expected the JSON that scene_to_json writes."
        ) from error


def _one_of(name: str, value: object, allowed: Iterable[object]) -> None:
    """Raise ValueError unless `value` is a member of `allowed`."""
    if not isinstance(value, (str, int)) or value not in list(allowed):
        shown = ", ".join(str(choice) for choice in list(allowed)[:12])
        raise ValueError(f"Scene {name}: got {value!r}, expected one of {shown} …")
