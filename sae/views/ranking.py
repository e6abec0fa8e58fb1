"""The concepts of a whole image in order, from its sparse code.

Knows: numpy. Does not know: names, models, screens.
Means are over patches only: the summary (CLS) token is another kind of place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from sae.views.code import Code

WEAK_SHARE = 0.1
"""A concept below this share of its own maximum is weak: it is folded away on screen."""
N_STRONG = 14
"""So is one that comes after this many, however strong."""
N_LEADING = 3
"""Concepts that stand for a whole picture."""
LEADING_SHARE = 0.5
"""They reach this share of their own maximum, if there are as many that do."""
GROUND = 1 / 3
"""What fills more than this share of the picture comes after the things that stand on it."""


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


def leading(
    code: Code,
    n_patches: int,
    top: Float[np.ndarray, " n_slots"],
    tiers: Sequence[Bool[np.ndarray, " n_slots"]],
    names: Sequence[str],
) -> list[int]:
    """Slots of the concepts that tell most of the picture, at most N_LEADING, things before ground.

    Activations count as shares of `top`, each latent's own maximum. Taken one after the other is the
    concept that adds most over all patches to what the ones before it reach there, of a name of its
    own, and of the first of `tiers` (who may lead, by slot) that has one left. First come those that
    reach LEADING_SHARE. What fills up to GROUND of the picture goes first, by peak × √area.
    """
    shares = _shares(code, n_patches, top)
    peak = shares.max(0, initial=0)
    chosen: list[int] = []
    for tier in [tier & (peak >= LEADING_SHARE) for tier in tiers] + list(tiers):
        _choose(shares, tier & (peak > 0), names, chosen)
    area = (shares > peak / 2).mean(0)
    order = sorted(chosen, key=lambda slot: -peak[slot] * np.sqrt(area[slot]))
    return sorted(order, key=lambda slot: bool(area[slot] > GROUND))


def _shares(
    code: Code, n_patches: int, top: Float[np.ndarray, " n_slots"]
) -> Float32[np.ndarray, "{n_patches} n_slots"]:
    shares = np.zeros((n_patches, len(code.latents)), np.float32)
    kept = code.place < n_patches
    place, slot = code.place[kept], code.slot[kept]
    most = np.where(top > 0, top, code.scale)
    shares[place, slot] = np.minimum(1, code.value[kept] / 255 * code.scale[slot] / most[slot])
    return shares


def _choose(
    shares: Float32[np.ndarray, "n_patches n_slots"],
    allowed: Bool[np.ndarray, " n_slots"],
    names: Sequence[str],
    chosen: list[int],
) -> None:
    """Add to `chosen`, while there is room, what of the allowed ones adds most."""
    while len(chosen) < N_LEADING:
        reached = shares[:, chosen].max(1, initial=0)[:, None]
        taken = {names[slot] for slot in chosen if names[slot]}
        free = allowed & np.array([name not in taken for name in names], bool)
        gain = np.where(free, np.maximum(0, shares - reached).sum(0), 0)
        if not gain.any():
            return
        chosen.append(int(gain.argmax()))
