"""What a classifier at the end of a backbone says: its classes in words, and how it reads its features.

Knows logits, names and linear readouts; knows timm's list of ImageNet's classes, and no SAEs.
"""

from collections import Counter
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor


class ClassReadout(NamedTuple):
    """A classifier that is linear in a layer: logits = mean over tokens of activations @ weights.T + bias."""

    weights: Float[Tensor, "classes d_model"]
    bias: Float[Tensor, " classes"]


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
