"""Turning concepts up or down: edited latents in CLIP or in a model that answers about pictures."""

from sae.steering.class_candidates import class_candidates
from sae.steering.classes import ClassSteerer
from sae.steering.clip import ClipSteerer
from sae.steering.edits import Edit, Scope, SteerRequest, insert, suppress
from sae.steering.steerer import Prepared, Steerer

__all__ = [
    "ClassSteerer",
    "ClipSteerer",
    "Edit",
    "Prepared",
    "Scope",
    "SteerRequest",
    "Steerer",
    "class_candidates",
    "insert",
    "suppress",
]
