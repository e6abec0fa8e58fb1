"""A second look at the images that are exemplars, and at no others: thumbnails and captions.

Knows images; knows nothing of latents, statistics, files or words. Each image is
opened once more; while the model works, the next ones are read in the background.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from sae.backbones import Backbone
from sae.concepts.build.image_pass import Data, Item
from sae.images import ImageError

THUMBNAIL = 96
"""Shorter side of a thumbnail at most, pixels; what the model did not see is cut off."""
QUALITY = 72
_READERS = 2


class Pictures(NamedTuple):
    """Thumbnails and captions of exemplar images."""

    images: dict[str, np.ndarray]
    """"image_ids", "labels" int32 (n), "offsets" int64 (n + 1), "webp" uint8."""
    captions: list[str]


def look_again(
    data: Data,
    backbone: Backbone,
    numbers: np.ndarray,
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

    found = _ahead(read, [int(number) for number in numbers])
    for number, (item, picture) in zip(progress(numbers.tolist()), found, strict=True):
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


def _ahead(
    read: Callable[[int], tuple[Item | None, bytes]], numbers: Sequence[int]
) -> Iterator[tuple[Item | None, bytes]]:
    """`read` of every number in order, a few of them at work at a time."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="exemplars") as readers:
        waiting = [readers.submit(read, number) for number in numbers[: 4 * _READERS]]
        for place in range(len(numbers)):
            found = waiting[place].result()
            waiting[place] = None
            if (later := place + 4 * _READERS) < len(numbers):
                waiting.append(readers.submit(read, numbers[later]))
            yield found


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
