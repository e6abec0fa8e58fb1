"""What a classifier at the end of a backbone says: its classes in words, and how it reads its features.

Knows logits, names and linear readouts; knows timm's list of ImageNet's classes, and no SAEs.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from sae.storage import read_json

IMAGENET_WORDS = Path(__file__).resolve().parents[1] / "bundled" / "imagenet_words.json"
"""Wider words of ImageNet's classes, made by training/photographs/words.py."""


class ClassReadout(NamedTuple):
    """A classifier that is linear in a layer: logits = mean over tokens of activations @ weights.T + bias."""

    weights: Float[Tensor, "classes d_model"]
    bias: Float[Tensor, " classes"]


def classes_sha256(classes: Sequence[str]) -> str:
    """What tells one list of classes from another, its order included."""
    return hashlib.sha256("\n".join(classes).encode()).hexdigest()


def wider_words(classes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Words that stand for several of `classes` each ("dog", "vehicle", "musical instrument"), with the
    numbers of these classes; {} for classes that are not ImageNet's thousand. ArtifactError if the file
    that comes with PatchLens is damaged."""
    if len(classes) != 1000:
        return {}
    content = read_json(IMAGENET_WORDS)
    if content.get("classes") != classes_sha256(classes):
        return {}
    return {word: tuple(numbers) for word, numbers in content["words"].items()}


def class_words(model: Any) -> tuple[str, ...]:
    """The classes of a timm model in plain words: its own labels, else ImageNet's where it has as many
    classes, else "class 0" and so on. Every word is another."""
    own = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    if own is not None and len(own) == model.num_classes:
        return tuple(str(name) for name in own)
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset is None:
        return tuple(f"class {number}" for number in range(model.num_classes))
    info = ImageNetInfo(subset)
    said = [info.index_to_description(number) for number in range(model.num_classes)]
    names = [text.split(",")[0].strip() for text in said]
    times = Counter(names)
    return tuple(
        name if times[name] == 1 else f"{name} ({_meaning(info, number)})"
        for number, name in enumerate(names)
    )


def _meaning(info: Any, number: int) -> str:
    """What tells a class from another of the same name: its definition's first words."""
    detailed = info.index_to_description(number, detailed=True)
    definition = detailed.partition(":")[2] or detailed
    return " ".join(definition.replace(";", ",").split(",")[0].split()[:6])
