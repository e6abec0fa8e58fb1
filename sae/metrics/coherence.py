"""Does a latent fire on one connected region or on scattered patches? Moran's I of its maps.

Knows sparse codes of patches and the grid. Knows nothing of images.

    I = (P / S) · sum_ij W_ij (x_i - x̄)(x_j - x̄) / sum_i (x_i - x̄)²

over the P patches of a map x, W binary with the 8 neighbours of each patch, S = sum W. Values placed at
random have -1 / (P - 1) on average, given as `null` beside the figures; one connected blob is near 1.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

MIN_ACTIVE = 5
"""Patches that have to be active in a map."""
MAX_ACTIVE_SHARE = 0.9
MIN_VARIANCE = 1e-10
MAX_MAPS, MIN_MAPS = 200, 50
"""Maps a latent is measured on: the first so many at most; fewer than that many give no figure."""
MAP_ELEMENTS = 1 << 22


class Coherence(NamedTuple):
    """Moran's I over latents; figures are NaN if none could be measured."""

    by_latent: Float64[np.ndarray, " n_latents"]
    """Mean over valid maps; NaN with fewer than `min_maps`."""
    n_measured: int
    mean: float
    quartiles: tuple[float, float, float]
    share_below_tenth: float
    """Share of measured latents with I < 0.1."""
    null: float
    """What values placed at random have: -1 / (P - 1)."""


def morans_i(
    maps: Shaped[np.ndarray, "n rows columns"] | Shaped[Tensor, "n rows columns"],
) -> Float64[np.ndarray, " n"]:
    """Moran's I with 8 neighbours of maps `(n, rows, columns)`; float64 `(n,)`, NaN for flat ones."""
    x = torch.as_tensor(maps, dtype=torch.float64)
    if x.dim() != 3 or min(x.shape[1:]) < 2:
        raise ValueError(f"morans_i: got maps {tuple(x.shape)}, expected (n, rows, columns).")
    x = x - x.mean((1, 2), keepdim=True)
    around = _with_neighbours(_with_neighbours(x, 1), 2) - x
    rows, columns = x.shape[1:]
    n_links = (3 * rows - 2) * (3 * columns - 2) - rows * columns
    spread = x.square().sum((1, 2))
    scores = rows * columns / n_links * (x * around).sum((1, 2)) / spread
    return torch.where(spread > 0, scores, torch.nan).numpy()


def _with_neighbours(x: Tensor, axis: int) -> Tensor:
    """Each value plus the one before and the one after it along an axis."""
    n = x.shape[axis]
    total = x.clone()
    total.narrow(axis, 1, n - 1).add_(x.narrow(axis, 0, n - 1))
    total.narrow(axis, 0, n - 1).add_(x.narrow(axis, 1, n - 1))
    return total


class CoherenceMeter:
    """Accumulates Moran's I of every latent over batches of sparse patch codes."""

    def __init__(
        self,
        n_latents: int,
        grid: tuple[int, int],
        *,
        max_maps: int = MAX_MAPS,
        min_maps: int = MIN_MAPS,
    ) -> None:
        if grid[0] * grid[1] <= MIN_ACTIVE:
            raise ValueError(f"coherence needs more than {MIN_ACTIVE} patches, got a grid {grid}.")
        self.n_latents, self.grid = n_latents, grid
        self.max_maps, self.min_maps = max_maps, min_maps
        self._sum, self._count = np.zeros(n_latents), np.zeros(n_latents, np.int64)

    def update(
        self,
        values: Float[Tensor, "images patches n"],
        indices: Int[Tensor, "images patches n"],
    ) -> None:
        """Add images: sparse codes `(images, patches, n)` of the patches alone, row by row of the
        grid; a place not used holds value 0."""
        rows, columns = self.grid
        if values.dim() != 3 or values.shape != indices.shape or values.shape[1] != rows * columns:
            raise ValueError(
                f"coherence: got codes {tuple(values.shape)} and {tuple(indices.shape)}, expected "
                f"(images, {rows * columns}, n) twice; leave CLS and registers out."
            )
        image, patch, place = (part.cpu() for part in (values > 0).nonzero(as_tuple=True))
        latent = indices.cpu()[image, patch, place]
        pairs, which, counts = torch.unique(
            image * self.n_latents + latent, return_inverse=True, return_counts=True
        )
        usable = (counts >= MIN_ACTIVE) & (counts <= MAX_ACTIVE_SHARE * rows * columns)
        owner = pairs % self.n_latents
        usable &= torch.from_numpy(self._count < self.max_maps)[owner]
        number = torch.where(usable, usable.cumsum(0) - 1, -1)
        kept = usable[which]
        flat = number[which][kept] * (rows * columns) + patch[kept]
        activations = values.detach().cpu()[image[kept], patch[kept], place[kept]].double()
        self._add(int(usable.sum()), flat, activations, owner[usable].numpy())

    def _add(self, n_maps: int, flat: Tensor, values: Tensor, latents: np.ndarray) -> None:
        """Measure `n_maps` maps in chunks; `flat` is sorted by nothing, so bounds are by map."""
        n_patches = self.grid[0] * self.grid[1]
        order = flat.argsort()
        flat, values = flat[order], values[order]
        step = max(1, MAP_ELEMENTS // n_patches)
        for start in range(0, n_maps, step):
            stop = min(start + step, n_maps)
            low, high = np.searchsorted(flat.numpy(), [start * n_patches, stop * n_patches])
            maps = torch.zeros((stop - start) * n_patches, dtype=torch.float64)
            maps[flat[low:high] - start * n_patches] = values[low:high]
            maps = maps.reshape(-1, *self.grid)
            valid = (maps.var((1, 2), correction=0) > MIN_VARIANCE).numpy()
            self._count_in(latents[start:stop][valid], morans_i(maps)[valid])

    def _count_in(self, latents: np.ndarray, scores: np.ndarray) -> None:
        """Add scores to their latents, in order, up to `max_maps` each."""
        order = np.argsort(latents, kind="stable")
        latents, scores = latents[order], scores[order]
        earlier = np.arange(len(latents)) - np.searchsorted(latents, latents)
        room = self._count[latents] + earlier < self.max_maps
        self._sum += np.bincount(latents[room], scores[room], self.n_latents)
        self._count += np.bincount(latents[room], minlength=self.n_latents)

    def result(self) -> Coherence:
        """The figures so far."""
        enough = self._count >= max(self.min_maps, 1)
        by_latent = np.where(enough, self._sum / np.maximum(self._count, 1), np.nan)
        scores, nan = by_latent[enough], float("nan")
        null = -1 / (self.grid[0] * self.grid[1] - 1)
        if not len(scores):
            return Coherence(by_latent, 0, nan, (nan, nan, nan), nan, null)
        lower, median, upper = map(float, np.quantile(scores, (0.25, 0.5, 0.75)))
        below = float((scores < 0.1).mean())
        return Coherence(
            by_latent, len(scores), float(scores.mean()), (lower, median, upper), below, null
        )
