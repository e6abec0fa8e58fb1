"""A second look at the images that are exemplars, and at no others: thumbnails, captions, lit regions.

Knows exemplars' patches, images and image features; knows nothing of words, statistics or files. Each image
is opened once more; while the model works, the next ones are read in the background. Regions that cover
the same patches of a picture are shown once.
"""

import io
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int, Integer
from PIL import Image

from sae.backbones import Backbone
from sae.concepts.build.image_pass import Data, Item
from sae.concepts.regions import WHOLE, bounds_of, shown_alone
from sae.errors import ImageError
from sae.prefetch import prefetch

THUMBNAIL = 96
"""Shorter side of a thumbnail at most, pixels; what the model did not see is cut off."""
QUALITY = 72
_READERS = 2
LIT = 0.3
"""A patch is lit if it reaches this share of the strongest patch of its image."""
DECODER = 0.3
"""Weight of what the decoder direction says beside the exemplars."""


class Pictures(NamedTuple):
    """Thumbnails and captions of exemplar images."""

    images: dict[str, np.ndarray]
    """"image_ids", "labels" int32 (n), "offsets" int64 (n + 1), "webp" uint8."""
    captions: list[str]


def look_again(
    data: Data,
    backbone: Backbone,
    numbers: Int[np.ndarray, " images"],
    *,
    thumbnails: bool = True,
    see: Callable[[int, Image.Image], None] = lambda _number, _image: None,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda numbers: numbers,
) -> Pictures:
    """Open the images `numbers` (rising) once more; `see(number, image)` is called for each.

    An image that has become unreadable since gets no thumbnail. Without `thumbnails` none does.
    """
    labels, captions, webp = [], [], []
    places = {name: place for place, name in enumerate(data.classes)}

    def read(number: int) -> tuple[Item | None, bytes]:
        try:
            item = data[number]
        except ImageError:
            return None, b""
        return item, _thumbnail(item.image, backbone) if thumbnails else b""

    pictures = prefetch(read, numbers.tolist(), threads=_READERS, depth=4 * _READERS)
    for number, (item, picture) in zip(progress(numbers.tolist()), pictures, strict=True):
        webp.append(picture)
        labels.append(places.get(item.label, -1) if item else -1)
        captions.append((item.caption or item.label) if item else "")
        if item:
            see(number, item.image)
    sizes = [len(one) for one in webp]
    images = {
        "image_ids": numbers.astype(np.int32),
        "labels": np.array(labels, np.int32),
        "offsets": np.r_[0, np.cumsum(sizes)].astype(np.int64),
        "webp": np.frombuffer(b"".join(webp), np.uint8),
    }
    return Pictures(images, captions)


def _thumbnail(image: Image.Image, backbone: Backbone) -> bytes:
    """What the model saw of `image`, at most THUMBNAIL pixels high and wide, as WebP."""
    box = backbone.image_box(image.size)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, THUMBNAIL / max(min(width, height), 1e-6))
    side = max(1, round(width * scale)), max(1, round(height * scale))
    rgb = image.convert("RGB")
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= rgb.width and box[3] <= rgb.height
    if not inside:  # the model pads: so does the thumbnail
        canvas = Image.new("RGB", (max(1, round(width)), max(1, round(height))))
        canvas.paste(rgb, (round(-box[0]), round(-box[1])))
        rgb, box = canvas, (0, 0, *canvas.size)
    seen = rgb.resize(side, Image.Resampling.LANCZOS, box=box)
    out = io.BytesIO()
    seen.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


class Region(NamedTuple):
    """The lit region of one exemplar."""

    latent: int
    weight: float
    patches: Integer[np.ndarray, " n"]


def regions_of(exemplars: dict[str, np.ndarray], n: int) -> dict[int, list[Region]]:
    """By image number, the lit regions of the n strongest exemplars of every latent."""
    ids, weights = exemplars["image_ids"][:, :n], exemplars["activations"][:, :n]
    ends = np.cumsum(exemplars["counts"], dtype=np.int64).reshape(exemplars["counts"].shape)
    starts = ends - exemplars["counts"]
    regions: dict[int, list[Region]] = {}
    for latent, column in np.argwhere(ids >= 0):
        part = slice(starts[latent, column], ends[latent, column])
        values, patches = exemplars["values"][part], exemplars["patches"][part]
        lit = patches[values >= LIT * values.max()] if len(values) else patches
        region = Region(int(latent), float(weights[latent, column]), lit)
        regions.setdefault(int(ids[latent, column]), []).append(region)
    return regions


class LitFeatures:
    """The mean image feature of every latent's lit regions, weighted by activation, gathered over
    exemplar images. Memory: (d_sae, d) float64."""

    def __init__(
        self, backbone: Backbone, regions: dict[int, list[Region]], d_sae: int, batch: int = 64
    ) -> None:
        self._backbone, self._regions, self._batch = backbone, regions, batch
        self._d_sae = d_sae
        self._sums: np.ndarray | None = None
        self._pictures: list[Image.Image] = []
        self._owners: list[list[tuple[int, float]]] = []

    def see(self, number: int, image: Image.Image) -> None:
        """Show the lit regions of an image."""
        grid = self._backbone.patch_grid
        boxes: dict[tuple[int, int, int, int], list[tuple[int, float]]] = {}
        for region in self._regions.get(number, ()):
            box = bounds_of(region.patches, grid)
            boxes.setdefault(box, []).append((region.latent, region.weight))
        if not boxes:
            return
        frame = self._backbone.image_box(image.size)
        rgb = image.convert("RGB")
        everyone = [(latent, WHOLE * w) for owners in boxes.values() for latent, w in owners]
        self._show(rgb, everyone)
        for box, owners in boxes.items():
            self._show(shown_alone(rgb, box, frame, grid), owners)

    def result(self) -> Float32[np.ndarray, "d_sae d"]:
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
        sums = self._sums
        if sums is None:
            sums = self._sums = np.zeros((self._d_sae, features.shape[1]))
        for feature, owners in zip(features, self._owners, strict=True):
            for latent, weight in owners:
                sums[latent] += weight * feature
        self._pictures, self._owners = [], []


def with_decoder(
    features: Float32[np.ndarray, "d_sae d"], W_dec: Float32[np.ndarray, "d_sae d_in"]
) -> Float32[np.ndarray, "d_sae d"]:
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
