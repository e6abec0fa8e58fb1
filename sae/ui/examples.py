"""The scenes of the page: its examples, what is worth looking at in each, and the composer's parts.

Knows: the emoji world and sparse codes. Does not know: models, Gradio.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sae.views.code import Code
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


def solve(
    scene: Scene, code: Code, grid: tuple[int, int], names: list[str], dense: list[int]
) -> tuple[int, int | None]:
    """What to show first: a patch in the topmost object, and the latent that marks that object.

    The latent is the one whose mean inside the object most exceeds twice its mean outside, always-on
    ones (slots in `dense`) left out; one that carries the object's name (`names`, by slot) goes
    first. The patch is where it fires most in the object.
    """
    cover = _cover(scene, grid)
    inside = cover >= min(0.5, float(cover.max()))
    on_patch = code.place < len(cover)
    slot, place = code.slot[on_patch], code.place[on_patch]
    value = code.value[on_patch] / 255 * code.scale[slot]
    n_slots = len(code.latents)
    within = np.bincount(slot, value * inside[place], n_slots) / max(1, inside.sum())
    beyond = np.bincount(slot, value * ~inside[place], n_slots) / max(1, (~inside).sum())
    merit = within - 2 * beyond
    merit[dense] = 0
    kind = scene.objects[-1].kind if scene.objects else ""
    fits = np.array([kind != "" and kind in name.lower() for name in names] or [False] * n_slots)
    merit = np.where(fits & (merit > 0), merit * 3, merit)
    if n_slots == 0 or merit.max() <= 0:
        return int(cover.argmax()), None
    best = int(merit.argmax())
    its_own = (slot == best) & inside[place]
    return int(place[its_own][value[its_own].argmax()]), int(code.latents[best])


def _cover(scene: Scene, grid: tuple[int, int]) -> np.ndarray:
    """Share of each patch that the topmost object covers, (n_patches,)."""
    rows, columns = grid
    masks = compose(scene).masks
    if not len(masks):
        return np.zeros(rows * columns)
    mask = Image.fromarray(masks[-1].astype(np.uint8) * 255)
    return np.asarray(mask.resize((columns, rows), Image.Resampling.BOX), float).ravel() / 255


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
