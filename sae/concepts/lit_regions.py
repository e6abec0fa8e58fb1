"""What a backbone says of the part of a picture where a latent fires.

Knows exemplars' patches and image features; knows nothing of words, statistics or files. A region is shown
in place, all around it being the picture's mean colour, so that size and position stay what the model
knows; the feature of the whole picture is added with half the weight (on the emoji world, names were right
more often than with either alone). Regions that cover the same patches of a picture are shown once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from sae.backbones import Backbone

LIT = 0.3
"""A patch is lit if it reaches this share of the strongest patch of its image."""
MARGIN = 1
"""Patches of surroundings that are left around a lit region."""
WHOLE = 0.5
"""Weight of the whole picture's feature beside the lit region's."""
DECODER = 0.3
"""Weight of what the decoder direction says beside the exemplars."""


class Region(NamedTuple):
    """The lit region of one exemplar."""

    latent: int
    weight: float
    patches: np.ndarray


def region_features(
    backbone: Backbone, image: Image.Image, regions: Sequence[Sequence[int] | None]
) -> np.ndarray:
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
        shown.append(_only(rgb, _bounds(numbers, grid), frame, grid))
    whole, *lit = backbone.image_features(shown).double().cpu().numpy()
    rest = iter(lit)
    mixed = [whole if p is None else _mixed(next(rest), whole) for p in regions]
    return np.stack(mixed).astype(np.float32)


def _mixed(lit: np.ndarray, whole: np.ndarray) -> np.ndarray:
    mixed = lit + WHOLE * whole
    return mixed / max(float(np.linalg.norm(mixed)), 1e-12)


def regions_of(exemplars: dict[str, np.ndarray], n: int) -> dict[int, list[Region]]:
    """By image number, the lit regions of the n strongest exemplars of every latent."""
    ids, weights = exemplars["image_ids"][:, :n], exemplars["activations"][:, :n]
    ends = np.cumsum(exemplars["counts"], dtype=np.int64).reshape(exemplars["counts"].shape)
    starts = ends - exemplars["counts"]
    found: dict[int, list[Region]] = {}
    for latent, column in np.argwhere(ids >= 0):
        part = slice(starts[latent, column], ends[latent, column])
        values, patches = exemplars["values"][part], exemplars["patches"][part]
        lit = patches[values >= LIT * values.max()] if len(values) else patches
        region = Region(int(latent), float(weights[latent, column]), lit)
        found.setdefault(int(ids[latent, column]), []).append(region)
    return found


class LitFeatures:
    """The mean image feature of every latent's lit regions, weighted by activation, gathered over
    exemplar images. Memory: (d_sae, d) float64."""

    def __init__(
        self, backbone: Backbone, regions: dict[int, list[Region]], d_sae: int, batch: int = 64
    ) -> None:
        self._backbone, self._regions, self._batch = backbone, regions, batch
        self._d_sae, self._sums = d_sae, None
        self._pictures: list[Image.Image] = []
        self._owners: list[list[tuple[int, float]]] = []

    def see(self, number: int, image: Image.Image) -> None:
        """Show the lit regions of an image."""
        grid = self._backbone.patch_grid
        boxes: dict[tuple[int, ...], list[tuple[int, float]]] = {}
        for region in self._regions.get(number, ()):
            box = _bounds(region.patches, grid)
            boxes.setdefault(box, []).append((region.latent, region.weight))
        if not boxes:
            return
        frame = self._backbone.image_box(image.size)
        rgb = image.convert("RGB")
        everyone = [(latent, WHOLE * w) for owners in boxes.values() for latent, w in owners]
        self._show(rgb, everyone)
        for box, owners in boxes.items():
            self._show(_only(rgb, box, frame, grid), owners)

    def result(self) -> np.ndarray:
        """Unit vectors float32 (d_sae, d), zero rows for latents without an exemplar."""
        self._flush()
        if self._sums is None:
            return np.zeros((self._d_sae, 0), np.float32)
        lengths = np.linalg.norm(self._sums, axis=1, keepdims=True)
        return (self._sums / np.maximum(lengths, 1e-12)).astype(np.float32)

    def _show(self, picture: Image.Image, owners: list[tuple[int, float]]) -> None:
        self._pictures.append(picture)
        self._owners.append(owners)
        if len(self._pictures) == self._batch:
            self._flush()

    def _flush(self) -> None:
        if not self._pictures:
            return
        with torch.inference_mode():
            features = self._backbone.image_features(self._pictures).double().cpu().numpy()
        if self._sums is None:
            self._sums = np.zeros((self._d_sae, features.shape[1]))
        for feature, owners in zip(features, self._owners, strict=True):
            for latent, weight in owners:
                self._sums[latent] += weight * feature
        self._pictures, self._owners = [], []


def _bounds(patches: np.ndarray, grid: tuple[int, int]) -> tuple[int, int, int, int]:
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


def _only(
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


def with_decoder(features: np.ndarray, W_dec: np.ndarray) -> np.ndarray:
    """Features (d_sae, d), zero rows for none, each with what its decoder direction says added.

    A ridge regression over all latents maps unit decoder rows W_dec (d_sae, d_in) to features; its
    answer for a latent is added with weight DECODER. Unit vectors float32.
    """
    there = np.abs(features).sum(1) > 0
    if features.shape[1] == 0 or there.sum() < 2:
        return features
    rows = W_dec / np.maximum(np.linalg.norm(W_dec, axis=1, keepdims=True), 1e-12)
    rows, seen = rows.astype(np.float64), features[there].astype(np.float64)
    known, centre = rows[there], seen.mean(0)
    gram = known.T @ known + 0.1 * len(known) * np.eye(rows.shape[1])
    said = rows @ np.linalg.solve(gram, known.T @ (seen - centre))
    mixed = np.where(there[:, None], features + DECODER * said, 0)
    lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
    return (mixed / np.maximum(lengths, 1e-12)).astype(np.float32)
