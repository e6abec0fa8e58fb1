"""Where each token of a vision tower lies in the picture, found by asking the image processor.

Knows how to read positions out of pixels; knows no model. Processors resize, crop, pad, cut into
tiles and reorder patches, each in its own way. Instead of repeating their arithmetic, a picture
whose colours say where each pixel lies is put through the same processor; the mean colour of a
patch is then its place. Blue is full inside the picture, so padding is known by its lack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Num
from PIL import Image
from torch import Tensor

from sae.backbones.tokens import TokenView
from sae.lazy import lazy

INSIDE = 0.5
"""A patch counts as part of the picture if at least this share of it is."""


@dataclass(frozen=True, eq=False)
class PatchLayout:
    """The places of a tower's tokens for pictures of one size."""

    centres: Float32[Tensor, "rows patches 2"]
    """(rows, patches, 2): x and y of each patch's middle as fractions of the picture; NaN: padding."""
    patch_grid: tuple[int, int]
    """Rows and columns of patches in one row of the tower (one tile)."""
    n_prefix: int
    """Tokens before the patches: CLS and registers."""
    has_cls: bool
    id: str = "this vision tower"

    @lazy
    def overview(self) -> int:
        """The row of the tower (the tile) that shows most of the picture."""
        spread = torch.nan_to_num(self.centres, nan=0.5)
        extent = spread.amax(1) - spread.amin(1)
        return int(extent.prod(1).argmax())

    @lazy
    def order(self) -> Int64[Tensor, " patches"]:
        """(patches,): which patch of the overview is number 0, 1, … row by row."""
        centres = torch.nan_to_num(self.centres[self.overview], nan=2.0)
        row = (centres[:, 1] * self.patch_grid[0]).floor()
        rank = np.lexsort((centres[:, 0].numpy(), row.numpy()))
        plain = np.arange(len(rank))
        # Row by row already: almost every tower. Only packed ones number patches otherwise.
        return torch.from_numpy(plain if _row_major(centres, self.patch_grid) else rank)

    def tokens_in_box(self, box: Sequence[float]) -> Bool[Tensor, "rows tokens"]:
        """Bool (rows, tokens): patches whose middle lies in (left, top, right, bottom), fractions.

        A box that holds no patch's middle means the patch that its own middle is nearest to;
        ValueError if it lies in a part of the picture that the model's processor cuts away.
        """
        left, top, right, bottom = box
        x, y = self.centres[..., 0], self.centres[..., 1]
        inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        if not inside[self.overview].any():
            middle = torch.tensor([(left + right) / 2, (top + bottom) / 2])
            apart = torch.nan_to_num(self.centres[self.overview] - middle, nan=9.0).abs()
            nearest = apart.norm(dim=-1).argmin()
            reach = torch.tensor([right - left, bottom - top]) / 2 + 1.01 * self._half_patch()
            if (apart[nearest] > reach).any():
                raise ValueError(
                    f"region: box {tuple(box)} lies in a part of the picture that the model does not "
                    "see: its processor crops pictures; choose a region nearer to the middle"
                )
            inside[self.overview, nearest] = True
        return self._with_prefix(inside)

    def tokens_of_patches(self, patches: Sequence[int]) -> Bool[Tensor, "rows tokens"]:
        """Bool (rows, tokens): the overview's patches with these numbers (row by row), and the
        patches of other tiles whose middle lies in one of them."""
        chosen = torch.zeros(self.centres.shape[:2], dtype=torch.bool)
        own = self.order[torch.as_tensor(list(patches))]
        chosen[self.overview, own] = True
        if len(self.centres) > 1:
            centres = self.centres[self.overview]
            edges = torch.nan_to_num(self.centres[:, :, None] - centres[own], nan=9.0).abs()
            chosen |= (edges <= self._half_patch()).all(-1).any(-1)
        return self._with_prefix(chosen)

    def read_by(self, policy: str) -> Bool[Tensor, "rows tokens"]:
        """Bool (rows, tokens): what an SAE of this policy reads; ValueError for no CLS token.

        "patches" is every patch, padding too, "cls" the first token of every row.
        """
        chosen = torch.zeros(len(self.centres), self.n_prefix + self.centres.shape[1]).bool()
        chosen[:, TokenView(self, policy).span] = True
        return chosen

    def _half_patch(self) -> Tensor:
        """Half the width and height of the overview's patches, as fractions of the picture."""
        centres = self.centres[self.overview]
        known = centres[~centres.isnan().any(-1)]
        extent = known.amax(0) - known.amin(0)
        half = [
            float(extent[axis]) / (n - 1) / 2 if n > 1 else 1.0
            for axis, n in enumerate((self.patch_grid[1], self.patch_grid[0]))
        ]
        return torch.tensor(half)

    def _with_prefix(self, patches: Tensor) -> Tensor:
        before = torch.zeros(len(patches), self.n_prefix, dtype=torch.bool)
        return torch.cat([before, patches], dim=1)


def position_picture(size: tuple[int, int]) -> Image.Image:
    """An RGB picture of `size` (width, height): red grows to the right, green downwards, blue full."""
    width, height = size
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels[..., 0] = np.round((np.arange(width) + 0.5) / width * 255)
    pixels[..., 1] = np.round((np.arange(height) + 0.5) / height * 255)[:, None]
    return Image.fromarray(pixels)


def read_positions(
    patches: Float[Tensor, "rows patches 3"], mean: Sequence[float], std: Sequence[float]
) -> Float32[Tensor, "rows patches 2"]:
    """Centres (rows, patches, 2) from the processed position picture's patches.

    patches: (rows, patches, 3), the mean colour of each patch as the model gets it, normalised with
    `mean` and `std`. NaN where less than INSIDE of the patch shows the picture.
    """
    colours = patches.float() * torch.tensor(std) + torch.tensor(mean)
    blue = colours[..., 2]
    centres = colours[..., :2].clamp(0, 1)
    return torch.where((blue >= INSIDE)[..., None], centres, torch.nan)


def patch_colours(
    pixels: Num[Tensor, "rows 3 height width"], patch: tuple[int, int]
) -> Float32[Tensor, "rows patches 3"]:
    """Mean colour (rows, patches, 3), row by row, of pixels (rows, 3, height, width)."""
    pooled = torch.nn.functional.avg_pool2d(pixels.float(), patch)
    return pooled.flatten(2).transpose(1, 2)


def _row_major(centres: Tensor, grid: tuple[int, int]) -> bool:
    x, y = (centres[:, axis].reshape(grid) for axis in (0, 1))
    return bool((x.diff(dim=1) >= -1e-3).all() and (y.diff(dim=0) >= -1e-3).all())
