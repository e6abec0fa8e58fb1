"""Activations of emoji scenes, computed once and shared by everything that is scored or trained.

Knows a backbone and the scene generator. Knows nothing of SAEs.
"""

from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sae.backbones import Backbone
from sae.world.scenes import SIZE, compose
from training.leaderboard.kept import Kept
from training.world.factors import Factors, factors_of
from training.world.generator import scenes

BATCH = 32


class Half(NamedTuple):
    """Scenes with their activations and their truth."""

    x: Tensor
    """float32 `(n_scenes, tokens, d)`, prefix tokens first."""
    factors: Factors
    n_prefix: int
    grid: tuple[int, int]

    @property
    def patches(self) -> Tensor:
        """Activations of the patches alone, `(n_scenes, patches, d)`."""
        return self.x[:, self.n_prefix :]


def activations_of(backbone: Backbone, layer: int, seed: int, n: int, what: str) -> Tensor:
    """Activations `(n, tokens, d)` of the first `n` scenes of stream `seed`."""
    chosen, parts = list(islice(scenes(seed), n)), []
    with torch.inference_mode():
        for start in tqdm(range(0, n, BATCH), desc=what, unit="batch"):
            pictures = [Image.fromarray(compose(s).image) for s in chosen[start : start + BATCH]]
            parts.append(backbone.activations(pictures, layer).float().cpu())
    return torch.cat(parts).clone()


def two_halves(
    backbone: Backbone, layer: int, seed: int, n_scenes: int, kept: Kept | None = None
) -> tuple[Half, Half]:
    """`n_scenes` scenes of stream `seed` in two halves: one to choose units, one to score them."""
    rows, columns = backbone.patch_grid
    if rows != columns or SIZE % rows:
        raise ValueError(
            f"{backbone.id} has {rows} × {columns} patches; scenes of {SIZE} pixels need a square "
            "grid that divides them. Score SAEs of the bundled backbone or one of the same grid."
        )
    what, chosen = "scenes to score on", list(islice(scenes(seed), n_scenes))
    x = (kept or Kept(None, {})).tensor(
        what, lambda: activations_of(backbone, layer, seed, n_scenes, what)
    )
    x = x[:, : backbone.n_prefix + rows * columns]
    middle = n_scenes // 2
    return tuple(
        Half(x[part], factors_of(chosen[part], SIZE // rows), backbone.n_prefix, (rows, columns))
        for part in (slice(0, middle), slice(middle, n_scenes))
    )


def patch_sample(n_scenes: int, n_patches: int, share: float, seed: int) -> np.ndarray:
    """Sorted numbers of a random share of all patches of `n_scenes` scenes."""
    n = n_scenes * n_patches
    return np.sort(np.random.default_rng(seed).choice(n, max(1, round(share * n)), replace=False))
