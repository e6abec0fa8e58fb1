"""The scenes of the page: its examples, and the composer's parts.

Knows: the emoji world. Does not know: models, codes, Gradio.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sae.views.pictures import data_uri, thumbnail
from sae.world.backgrounds import BACKGROUNDS
from sae.world.scenes import (
    ANGLES,
    MAX_OBJECTS,
    OBJECT_SIZES,
    SIZE,
    STYLES,
    Scene,
    SceneObject,
    compose,
    kinds,
)

_SHEET = Path(__file__).parent.parent / "bundled" / "sprites.webp"
_LAYOUT = _SHEET.with_suffix(".json")


class Example(NamedTuple):
    """A scene with the name that links use and the title that people read."""

    name: str
    title: str
    scene: Scene


def _two(background: str, seed: int, first: SceneObject, second: SceneObject) -> Scene:
    return Scene(background, (second, first), seed)


EXAMPLES: tuple[Example, ...] = (
    Example(
        "tiger",
        "Tiger",
        _two(
            "grass", 3, SceneObject("tiger", "noto", 36, 52), SceneObject("tulip", "noto", 74, 34)
        ),
    ),
    Example(
        "sailboat",
        "Sailboat",
        _two(
            "water",
            5,
            SceneObject("sailboat", "noto", 58, 44),
            SceneObject("duck", "noto", 24, 72, "small"),
        ),
    ),
    Example(
        "pizza",
        "Pizza, cat",
        _two(
            "wood", 2, SceneObject("pizza", "twemoji", 62, 58), SceneObject("cat", "noto", 28, 34)
        ),
    ),
    Example(
        "rocket",
        "Rocket",
        _two(
            "night",
            7,
            SceneObject("rocket", "noto", 50, 46),
            SceneObject("owl", "noto", 20, 74, "small"),
        ),
    ),
    Example(
        "camel",
        "Camel",
        _two(
            "sand", 1, SceneObject("camel", "noto", 40, 54), SceneObject("cactus", "noto", 78, 40)
        ),
    ),
    Example(
        "guitar",
        "Guitar",
        _two(
            "brick",
            4,
            SceneObject("guitar", "twemoji", 46, 48),
            SceneObject("hat", "noto", 80, 22, "small"),
        ),
    ),
    Example(
        "penguin",
        "Penguin",
        _two(
            "snow", 6, SceneObject("penguin", "noto", 38, 50), SceneObject("pine", "noto", 76, 46)
        ),
    ),
    Example(
        "bus",
        "Bus",
        _two(
            "checkers",
            3,
            SceneObject("bus", "twemoji", 52, 50),
            SceneObject("bicycle", "noto", 20, 20, "small"),
        ),
    ),
    Example(
        "strawberry",
        "Strawberry",
        _two(
            "dots",
            8,
            SceneObject("strawberry", "noto", 46, 50),
            SceneObject("banana", "noto", 78, 76, "small"),
        ),
    ),
    Example(
        "airplane",
        "Airplane",
        _two(
            "sky",
            2,
            SceneObject("airplane", "noto", 50, 46),
            SceneObject("eagle", "noto", 80, 78, "small"),
        ),
    ),
    Example(
        "unseen",
        "New style",
        _two(
            "grass", 9, SceneObject("fox", "fluent", 38, 54), SceneObject("apple", "fluent", 76, 34)
        ),
    ),
)
"""Opened in this order; the first is on screen at the start. The last is drawn in the style that
the bundled models were not trained on."""


def picture_of(scene: Scene) -> Image.Image:
    """The scene as an RGB picture."""
    return Image.fromarray(compose(scene).image)


def describe_scene(scene: Scene) -> str:
    """A scene in words, for people who do not see it."""
    things = [item.kind for item in reversed(scene.objects)]
    if not things:
        return f"An empty scene: {scene.background}"
    return f"{' and '.join(things).capitalize()} on {scene.background}"


@cache
def drawing_box() -> dict[str, object]:
    """Everything the composer shows, the sprite sheet included (about 0.9 MB of JSON)."""
    layout = json.loads(_LAYOUT.read_text(encoding="utf-8"))
    return {
        "sheet": data_uri(_SHEET.read_bytes(), "webp"),
        "columns": layout["columns"],
        "rows_per_style": layout["rows_per_style"],
        "side": SIZE,
        "sizes": dict(OBJECT_SIZES),
        "angles": list(ANGLES),
        "styles": list(STYLES),
        "max_objects": MAX_OBJECTS,
        "kinds": [{"name": k.name, "group": k.group, "realm": k.realm} for k in kinds()],
        "backgrounds": [
            {"name": name, "picture": data_uri(thumbnail(picture_of(Scene(name)), 96), "webp")}
            for name in BACKGROUNDS
        ],
        "first": {"background": "grass", "objects": [vars(SceneObject("tiger"))], "seed": 0},
    }
