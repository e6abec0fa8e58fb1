"""What models say of a picture and of a part of it: its sparse code, and features of regions.

Knows backbones, SAEs and patches; knows nothing of words, statistics or files. A region is shown in place,
all around it being the picture's mean colour, so that size and position stay what the model knows; the
feature of the whole picture is added with half the weight (on the emoji world, names were right more often
than with either alone).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, Integer
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView, require_finite
from sae.model import SparseAutoencoder

MARGIN = 1
"""Patches of surroundings that are left around a lit region."""
WHOLE = 0.5
"""Weight of the whole picture's feature beside the lit region's."""


def sparse_codes(
    inputs: Sequence[Image.Image] | dict[str, Tensor], backbone: Backbone, sae: SparseAutoencoder
) -> tuple[Float32[np.ndarray, "images tokens n"], Int64[np.ndarray, "images tokens n"]]:
    """Values float32 and latents int64 (images, tokens, n) of the tokens that the SAE reads."""
    values, indices, _ = read_code(inputs, backbone, sae)
    return values, indices


@torch.inference_mode()
def read_code(
    inputs: Sequence[Image.Image] | dict[str, Tensor],
    backbone: Backbone,
    sae: SparseAutoencoder,
    names: Sequence[str] = (),
) -> tuple[
    Float32[np.ndarray, "images tokens n"],
    Int64[np.ndarray, "images tokens n"],
    Float[Tensor, "images tokens d_in"],
]:
    """`sparse_codes`, and the activations that were read, (images, tokens, d_in).

    ValueError for activations that are NaN or infinite, with the image's name where `names` has them.
    """
    where = sae.cfg.backbone
    x = TokenView(backbone, where.tokens).read(backbone.activations(inputs, where.layer))
    if names:
        require_finite(x, names, backbone=where.id, layer=where.layer)
    x = x.to(sae.W_enc)
    code = sae.encode_sparse(x)
    return (
        code.values.float().cpu().numpy(),
        code.indices.cpu().numpy(),
        x,
    )


def region_features(
    backbone: Backbone, image: Image.Image, regions: Sequence[Sequence[int] | None]
) -> Float32[np.ndarray, "n_regions d"]:
    """Unit vectors float32 (regions, d) of regions (row-major patches) of a picture; None is all."""
    grid, frame = backbone.patch_grid, backbone.image_box(image.size)
    rgb, n = image.convert("RGB"), backbone.patch_grid[0] * backbone.patch_grid[1]
    shown = [rgb]
    for patches in regions:
        if patches is None:
            continue
        numbers = np.asarray(patches, np.int64)
        if not len(numbers) or numbers.min() < 0 or numbers.max() >= n:
            raise ValueError(
                f"A region holds one or more patches of 0 to {n - 1}; got {patches!r}."
            )
        shown.append(shown_alone(rgb, bounds_of(numbers, grid), frame, grid))
    whole, *lit = backbone.image_features(shown).double().cpu().numpy()
    rest = iter(lit)
    mixed = [whole if p is None else _mixed(next(rest), whole) for p in regions]
    return np.stack(mixed).astype(np.float32)


def _mixed(lit: np.ndarray, whole: np.ndarray) -> np.ndarray:
    mixed = lit + WHOLE * whole
    return mixed / max(float(np.linalg.norm(mixed)), 1e-12)


def bounds_of(
    patches: Integer[np.ndarray, " n"], grid: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in patches of a region with its margin; all where no patch fires."""
    rows, columns = grid
    if not len(patches):
        return 0, 0, columns, rows
    row, column = np.divmod(patches.astype(np.int64), columns)
    return (
        max(0, int(column.min()) - MARGIN),
        max(0, int(row.min()) - MARGIN),
        min(columns, int(column.max()) + 1 + MARGIN),
        min(rows, int(row.max()) + 1 + MARGIN),
    )


def shown_alone(
    rgb: Image.Image,
    box: tuple[int, int, int, int],
    frame: tuple[float, float, float, float],
    grid: tuple[int, int],
) -> Image.Image:
    """The picture with its mean colour everywhere but in a box of patches."""
    wide, high = (frame[2] - frame[0]) / grid[1], (frame[3] - frame[1]) / grid[0]
    left, top = frame[0] + box[0] * wide, frame[1] + box[1] * high
    right, bottom = frame[0] + box[2] * wide, frame[1] + box[3] * high
    region = (
        max(0, round(left)),
        max(0, round(top)),
        min(rgb.width, round(right)),
        min(rgb.height, round(bottom)),
    )
    mean = rgb.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    shown = Image.new("RGB", rgb.size, mean)
    if region[2] > region[0] and region[3] > region[1]:
        shown.paste(rgb.crop(region), region[:2])
    return shown
