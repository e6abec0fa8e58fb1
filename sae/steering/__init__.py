"""Turning concepts up or down: edited latents in CLIP or in a model that answers about pictures."""

from sae.steering.clip import ClipSteerer
from sae.steering.edits import Edit, Scope, SteerRequest, insert, suppress
from sae.steering.steerer import Prepared, Steerer

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
