"""How deep in a taxonomy a latent's exemplars meet, by latent and by Matryoshka group.

Knows exemplar numbers and one label path per image, such as ("animal", "mammal", "cat"), of any and
also of unequal lengths. Knows nothing of images.

Pach et al., section 4.4: the depth of a latent is the mean, over all pairs of its exemplars, of the number
of leading levels that their labels share (their lowest common ancestor); 0 means not even the first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from sae.metrics.exemplars import checked

LATENTS_AT_ONCE = 1 << 14


class GroupDepth(NamedTuple):
    """Depth of the latents of one group; NaN if none of them has k exemplars."""

    n_latents: int
    """Latents measured."""
    n_excluded: int
    """Latents with fewer than k labelled exemplars."""
    mean: float
    """Of the latents' depths, not rounded."""
    mean_rounded: float
    """Of the depths rounded to whole levels, as the paper's table counts."""
    std: float


def inaturalist_path(folder: str) -> tuple[str, ...]:
    """kingdom … species from an iNaturalist 2021 folder name, "00042_Animalia_Chordata_…"."""
    parts = tuple(folder.split("_"))
    if len(parts) < 2 or not parts[0].isdigit():
        raise ValueError(
            f"{folder!r} is not an iNaturalist folder name; expected a number and the ranks from "
            "kingdom to species, with '_' between them."
        )
    return parts[1:]


def lca_depth(
    exemplars: Int[np.ndarray, "n_latents k"], paths: Sequence[Sequence[str]]
) -> Float64[np.ndarray, " n_latents"]:
    """Depth of every latent, float64 `(n_latents,)`.

    exemplars `(n_latents, k)`: image numbers, -1 where there is none. paths: one per image; an
    empty one is an image without a label. NaN for latents with fewer than k labelled exemplars.
    """
    prefixes = _prefixes(paths)
    ids = checked(exemplars, len(paths), "lca_depth")
    if ids.shape[1] < 2:
        raise ValueError(f"lca_depth: got {ids.shape[1]} exemplars a latent, expected 2 or more.")
    labelled = (ids >= 0) & np.append(prefixes[0] >= 0, False)[ids]
    depth = np.full(len(ids), np.nan)
    kept = np.flatnonzero(labelled.all(1))
    first, second = np.triu_indices(ids.shape[1], 1)
    for start in range(0, len(kept), LATENTS_AT_ONCE):
        rows = kept[start : start + LATENTS_AT_ONCE]
        shared = np.zeros(len(rows))
        for level in prefixes:
            places = level[ids[rows]]
            left, right = places[:, first], places[:, second]
            shared += ((left == right) & (left >= 0)).mean(1)
        depth[rows] = shared
    return depth


def chance_depth(paths: Sequence[Sequence[str]]) -> float:
    """The depth of two labelled images drawn at random: what a latent without a meaning has."""
    prefixes = _prefixes(paths)
    n = int((prefixes[0] >= 0).sum())
    if n < 2:
        return float("nan")
    counts = [np.bincount(level[level >= 0]) for level in prefixes]
    return float(sum((c * (c - 1.0)).sum() for c in counts) / (n * (n - 1.0)))


def depth_by_group(
    depth: Float64[np.ndarray, " n_latents"], group_sizes: Sequence[int]
) -> list[GroupDepth]:
    """Depths of the Matryoshka groups; `group_sizes` in order, summing to the number of latents."""
    if sum(group_sizes) != len(depth):
        raise ValueError(f"group_sizes sum to {sum(group_sizes)}, expected {len(depth)} latents.")
    groups, start = [], 0
    for size in group_sizes:
        part = depth[start : start + size]
        depths, start = part[~np.isnan(part)], start + size
        figures = (
            [depths.mean(), np.floor(depths + 0.5).mean(), depths.std()] if len(depths) else []
        )
        mean, rounded, std = map(float, figures or [np.nan] * 3)
        groups.append(GroupDepth(len(depths), size - len(depths), mean, rounded, std))
    return groups


def _prefixes(paths: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Per level, the number `(n_images)` of each image's path down to it; -1 past its end."""
    levels = max((len(path) for path in paths), default=0)
    prefixes = []
    for level in range(max(levels, 1)):
        known: dict[tuple[str, ...], int] = {}
        numbers = [
            known.setdefault(tuple(path[: level + 1]), len(known)) if len(path) > level else -1
            for path in paths
        ]
        prefixes.append(np.asarray(numbers, dtype=np.int64))
    return prefixes
