"""A head made ready for a list of classes: image features in, class logits out.

Knows which class names are accepted, linear readouts and vision prompts, and where two heads
disagree; knows nothing of how a head was trained or of SAEs.
Every head, prompted or not, ends as one of these, so that all that follows is written once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from sae.backbones.base import Images
from sae.backbones.prompting import ClipParts, VisionPrompts

MAX_CLASSES = 2000


@dataclass(frozen=True)
class Classifier:
    """logits = scale · unit(features) @ weights.T + bias."""

    name: str
    class_names: tuple[str, ...]
    weights: Float[Tensor, "classes d_proj"]
    """(C, d_proj) float32; unit vectors, but for a linear probe."""
    scale: float
    bias: Float[Tensor, " classes"]
    """(C,) float32; zeros, but for a linear probe."""
    prompts: VisionPrompts | None = None
    """What the vision tower is prompted with, if anything."""

    def logits(self, features: Float[Tensor, "*images d_proj"]) -> Float[Tensor, "*images classes"]:
        """(…, C) from image features (…, d_proj) of any length."""
        unit = F.normalize(features.float(), dim=-1)
        return self.scale * (unit @ self.weights.T) + self.bias

    def number(self, class_name: str) -> int:
        """The number of a class; ValueError if there is none of this name."""
        if class_name not in self.class_names:
            shown = ", ".join(self.class_names[:12])
            raise ValueError(f"there is no class {class_name!r}; {self.name} knows {shown} …")
        return self.class_names.index(class_name)

    def direction(self, first: int, second: int) -> Float[Tensor, " d_proj"]:
        """(d_proj): what the margin logit[first] - logit[second] measures in unit features."""
        return self.scale * (self.weights[first] - self.weights[second])

    def offset(self, first: int, second: int) -> float:
        """The part of that margin that no image changes."""
        return float(self.bias[first] - self.bias[second])


@torch.no_grad()
def classify(
    parts: ClipParts, classifier: Classifier, images: Images
) -> Float[Tensor, "images classes"]:
    """Logits (B, C) of images, by the whole forward."""
    return classifier.logits(parts.image_features(images, classifier.prompts))


def accuracy(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> float:
    """Share (0 to 1) of rows of logits (N, C) whose largest entry is the label's (N,)."""
    return (logits.argmax(-1) == labels).float().mean().item()


def checked_classes(names: Sequence[str]) -> tuple[str, ...]:
    """The class names, stripped; ValueError unless they are two or more, none empty, none twice.

    Any script is welcome here; whether a text tower knows the words is for its tokenizer to say.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a list of class names, got {names!r:.80}")
    classes = tuple(" ".join(name.split()) for name in names)
    if len(classes) < 2:
        raise ValueError(
            f"got {len(classes)} class{'es'[: 2 * (len(classes) != 1)]} {list(classes)}, expected two or "
            "more: with one class there is nothing to decide"
        )
    if len(classes) > MAX_CLASSES:
        raise ValueError(f"got {len(classes)} classes, at most {MAX_CLASSES} are taken at once")
    if empty := [number for number, name in enumerate(classes) if not name]:
        raise ValueError(f"class number {empty[0]} has an empty name; give every class a name")
    seen: dict[str, str] = {}
    for name in classes:
        twin = seen.setdefault(name.casefold(), name)
        if twin is not name:
            raise ValueError(
                f"class names {twin!r} and {name!r} are the same; give every class a name of its own"
            )
    return classes


def first_disagreement(
    parts: ClipParts,
    images: Iterable[Image.Image],
    pair: tuple[Classifier, Classifier],
    at_once: int = 8,
    *,
    truths: Sequence[int] | None = None,
) -> int | None:
    """Place of the first image of which two heads say different classes; None if there is none.

    With `truths`, the class number of each image, the second head must also be right. `images` is
    drawn from only as far as is needed, `at_once` at a time.
    """
    waiting, seen = iter(images), 0
    while batch := list(islice(waiting, at_once)):
        inputs = parts.backbone.preprocess(batch)
        first, second = (classify(parts, head, inputs).argmax(-1) for head in pair)
        fits = first != second
        if truths is not None:
            fits &= second == torch.as_tensor(truths[seen : seen + len(batch)]).to(second.device)
        places = torch.nonzero(fits)
        if len(places):
            return seen + int(places[0])
        seen += len(batch)
    return None
