"""The concepts of a whole image in order, from its sparse code.

Knows: numpy. Does not know: names, models, screens.
Means are over patches only: the summary (CLS) token is another kind of place.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from sae.views.code import Code


class Ranked(NamedTuple):
    """Latents of one image, strongest first."""

    latents: Int64[np.ndarray, " n"]
    """(n,) int64"""
    maximum: Float32[np.ndarray, " n"]
    """(n,) float32: the largest activation over patches."""
    mean: Float32[np.ndarray, " n"]
    """(n,) float32: the mean activation over all patches, silent ones included."""


def rank(code: Code, n_patches: int, by: str = "max") -> Ranked:
    """Order the latents that fire in at least one patch by `"max"` or by `"mean"`."""
    if by not in ("max", "mean"):
        raise ValueError(f"by: got {by!r}, expected 'max' or 'mean'")
    on_patch = code.place < n_patches
    slot = code.slot[on_patch]
    value = code.value[on_patch] / np.float32(255) * code.scale[slot]
    maximum = np.zeros(len(code.latents), np.float32)
    np.maximum.at(maximum, slot, value)
    total = np.bincount(slot, weights=value, minlength=len(code.latents)).astype(np.float32)
    mean = total / np.float32(n_patches)
    order = np.argsort(-(maximum if by == "max" else mean), kind="stable")
    order = order[maximum[order] > 0]
    return Ranked(code.latents[order].astype(np.int64), maximum[order], mean[order])
