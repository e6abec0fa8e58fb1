"""What the composer in the browser needs: sprites, kinds, backgrounds, sizes.

Knows: the emoji world's parts. Does not know: models, Gradio.
"""

import json
from functools import lru_cache
from pathlib import Path

from sae.ui.examples import picture_of
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
    kinds,
)

_SHEET = Path(__file__).parent.parent / "bundled" / "sprites.webp"
_LAYOUT = _SHEET.with_suffix(".json")


@lru_cache(maxsize=1)
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
