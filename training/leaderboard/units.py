"""Units of any kind on scenes: SAE latents (sparse) and linear units (dense, of two signs).

Knows how to turn activations into values of units per patch and per image. Knows nothing of truth.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sae.metrics.truth import column
from sae.model import SparseAutoencoder
from training.leaderboard.scenes import Half

SCENES_AT_ONCE = 64


class Values(NamedTuple):
    """Values of units on the scenes of a half."""

    patch: np.ndarray | sparse.csc_array
    """`(n_scenes × patches, n_units)`."""
    mean: np.ndarray | sparse.csc_array
    """Per image, over all tokens (PatchSAE's image-level activation): `(n_scenes, n_units)`."""
    maximum: np.ndarray | sparse.csc_array
    """Per image, over all tokens. Dense units of two signs: the maxima of u, then those of -u."""

    def maps(self, unit: int, scenes: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """Maps `(len(scenes), rows, columns)` of a unit; n + u of n dense units is -unit u."""
        rows, values = column(self.patch, unit)
        whole = np.zeros(self.patch.shape[0], np.float32)
        whole[rows] = values
        return whole.reshape(-1, *grid)[scenes]


class Units(Protocol):
    """A family of units: latents of an SAE, neurons, components."""

    signed: bool
    """Whether a unit may also stand for something by its negative values."""

    def values(self, half: Half) -> Values:
        """Values of all units on a half."""
        ...


class Latents:
    """The latents of an SAE; image-level values are taken over the tokens that it was made for."""

    signed = False

    def __init__(self, sae: SparseAutoencoder) -> None:
        if sae.cfg.backbone.tokens == "cls":
            raise ValueError("an SAE of the CLS token has no patches to be scored on.")
        self.sae = sae

    @torch.inference_mode()
    def values(self, half: Half) -> Values:
        every = self.sae.cfg.backbone.tokens == "all"
        x, skip = (half.x, half.n_prefix) if every else (half.patches, 0)
        n_tokens, parts = x.shape[1], []
        for start in range(0, len(x), SCENES_AT_ONCE):
            code = self.sae.encode_sparse(x[start : start + SCENES_AT_ONCE])
            scene, token, place = (code.values != 0).nonzero(as_tuple=True)
            found = code.values[scene, token, place], code.indices[scene, token, place]
            parts.append([part.numpy() for part in (scene + start, token, *found)])
        scene, token, value, latent = (np.concatenate(part) for part in zip(*parts, strict=True))
        shape = (len(x), self.sae.cfg.d_sae)
        on_patch = token >= skip
        n_patches = n_tokens - skip
        row = scene[on_patch] * n_patches + token[on_patch] - skip
        patch = sparse.csc_array(
            (value[on_patch], (row, latent[on_patch])), shape=(len(x) * n_patches, shape[1])
        )
        total = sparse.csc_array((value / n_tokens, (scene, latent)), shape=shape)
        return Values(patch, total, _maximum(scene, latent, value, shape))


def _maximum(
    row: np.ndarray, column_: np.ndarray, value: np.ndarray, shape: tuple[int, int]
) -> sparse.csc_array:
    """The largest of the values that fall on the same place."""
    key = column_.astype(np.int64) * shape[0] + row
    order = np.lexsort((value, key))
    key, value = key[order], value[order]
    last = np.flatnonzero(np.r_[key[1:] != key[:-1], True])
    places = key[last]
    return sparse.csc_array((value[last], (places % shape[0], places // shape[0])), shape=shape)


class Linear:
    """Linear units of two signs, such as `sae.metrics.baselines` makes."""

    signed = True

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        self._make = make

    @torch.inference_mode()
    def values(self, half: Half) -> Values:
        found = self._make(half.x)
        patch = found[:, half.n_prefix :].reshape(-1, found.shape[-1])
        both = torch.cat([found.amax(1), -found.amin(1)], dim=1)
        return Values(patch.numpy(), found.mean(1).numpy(), both.numpy())
