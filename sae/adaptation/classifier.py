"""A head made ready for a list of classes: image features in, class logits out.

Knows linear readouts and vision prompts; knows nothing of how a head was trained or of SAEs.
Every head, prompted or not, ends as one of these, so that all that follows is written once.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sae.backbones.base import Images
from sae.backbones.prompting import ClipParts, VisionPrompts


@dataclass(frozen=True)
class Classifier:
    """logits = scale · unit(features) @ weights.T + bias."""

    name: str
    class_names: tuple[str, ...]
    weights: Tensor
    """(C, d_proj) float32; unit vectors, but for a linear probe."""
    scale: float
    bias: Tensor
    """(C,) float32; zeros, but for a linear probe."""
    prompts: VisionPrompts | None = None
    """What the vision tower is prompted with, if anything."""

    def logits(self, features: Tensor) -> Tensor:
        """(…, C) from image features (…, d_proj) of any length."""
        unit = F.normalize(features.float(), dim=-1)
        return self.scale * (unit @ self.weights.T) + self.bias

    def number(self, class_name: str) -> int:
        """The number of a class; ValueError if there is none of this name."""
        if class_name not in self.class_names:
            shown = ", ".join(self.class_names[:12])
            raise ValueError(f"there is no class {class_name!r}; {self.name} knows {shown} …")
        return self.class_names.index(class_name)

    def direction(self, first: int, second: int) -> Tensor:
        """(d_proj): what the margin logit[first] - logit[second] measures in unit features."""
        return self.scale * (self.weights[first] - self.weights[second])

    def offset(self, first: int, second: int) -> float:
        """The part of that margin that no image changes."""
        return float(self.bias[first] - self.bias[second])


@torch.no_grad()
def classify(parts: ClipParts, classifier: Classifier, images: Images) -> Tensor:
    """Logits (B, C) of images, by the whole forward."""
    return classifier.logits(parts.image_features(images, classifier.prompts))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share (0 to 1) of rows of logits (N, C) whose largest entry is the label's (N,)."""
    return (logits.argmax(-1) == labels).float().mean().item()
