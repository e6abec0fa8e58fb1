"""sae-for-vlm's checkpoints (Pach et al. 2025): dictionary_learning's files in telling folders.

    {variant}/imagenet_train_activations_{model}_{layer}_{point}_{variant}/trainer_0/
        config.json   checkpoints/ae_100000.pt

config.json names neither backbone nor layer: only the folder does. The checkpoints take raw
activations (the training's scaling was folded in at save).
"""

import re
from typing import Any

from sae.interop import dictionary_learning
from sae.interop.recipe import Reading
from sae.interop.source import Source

NAME = "sae_for_vlm"
TITLE = "sae-for-vlm: …/trainer_0/checkpoints/ae_100000.pt"
BACKBONES = {
    "clip-vit-large-patch14-336": "openai/clip-vit-large-patch14-336",
    "siglip-so400m-patch14-384": "google/siglip-so400m-patch14-384",
}
_FOLDER = re.compile(
    r"(?P<data>\w+?)_(?:train|val)_activations_(?P<model>[\w.-]+?)_(?P<layer>-?\d+)"
    r"_(?P<point>post_mlp_residual|post_projection)_"
)


def detect(source: Source) -> bool:
    return _named(source) is not None and source.weights(("ae_100000.pt",)) is not None


def read(source: Source, hints: Any) -> Reading:
    path = source.weights(("ae_100000.pt",))
    result = dictionary_learning.read(Source(path) if path else source, hints)
    named = _named(source)
    result.assumed.append("CLS token only, as in the paper; steering runs used two random tokens")
    result.tokens = "cls"
    if named is not None and named["point"] == "post_mlp_residual":
        result.backbone = BACKBONES.get(named["model"], named["model"])
        result.layer = int(named["layer"])
        result.found.append(f"folder says {result.backbone}, layer {result.layer}")
        if "random_k" in str(source.path):
            result.tokens = "all"
    elif named is not None:
        result.found.append("folder says post_projection: the projected image vector, not a layer")
    return result


def _named(source: Source) -> re.Match[str] | None:
    for part in reversed(source.path.absolute().parts):
        if found := _FOLDER.search(part):
            return found
    return None
