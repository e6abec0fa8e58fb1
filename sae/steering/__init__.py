"""Turning concepts up or down: edited latents in CLIP or in a model that answers about pictures."""

from sae.steering.edits import Edit, Scope, SteerRequest
from sae.steering.image_features import ClipSteerer
from sae.steering.prepared import Prepared
from sae.steering.recipes import insert, suppress
from sae.steering.steerer import Steerer

__all__ = [
    "ClipSteerer",
    "Edit",
    "Prepared",
    "Scope",
    "SteerRequest",
    "Steerer",
    "insert",
    "suppress",
]
