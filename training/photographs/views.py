"""Views of photographs to train on: each one whole, and random crops of several sizes, some mirrored.

Knows Pillow and paths; knows no models. Small photo collections give few tokens, and a crop shows a network
with a fixed input the same thing larger, elsewhere and beside other edges.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sae.images import open_image
from training.data.sources.folder import list_pictures

CROPS = 3
"""Random crops of a photo, beside the photo itself."""
SMALLEST = 0.45
"""Side of the smallest crop, as a share of the photo's shorter side."""
QUALITY = 92


def views(image: Image.Image, seed: int, n_crops: int = CROPS) -> Iterator[Image.Image]:
    """The picture, then `n_crops` random squares of it, each mirrored with probability 1/2.

    Sides are uniform between SMALLEST and 1 of the shorter side. The same seed gives the same crops.
    """
    yield image
    chance = np.random.default_rng(seed)
    width, height = image.size
    for _ in range(n_crops):
        side = max(1, round(float(chance.uniform(SMALLEST, 1)) * min(width, height)))
        left = int(chance.integers(0, width - side + 1))
        top = int(chance.integers(0, height - side + 1))
        crop = image.crop((left, top, left + side, top + side))
        yield ImageOps.mirror(crop) if chance.random() < 0.5 else crop


def write_views(folders: Sequence[Path], out: Path, n_crops: int = CROPS) -> int:
    """Write the views of all photos in `folders` as JPEGs below `out`; how many there are now.

    Photos whose last view is there already are left alone, so a stopped run goes on.
    """
    n = 0
    for folder in folders:
        for path in list_pictures(folder):
            name = path.relative_to(folder)
            stem = out / folder.name / name.parent / name.stem
            last = stem.with_name(f"{stem.name}-{n_crops}.jpg")
            n += 1 + n_crops
            if last.is_file():
                continue
            stem.parent.mkdir(parents=True, exist_ok=True)
            seed = zlib.crc32(f"{folder.name}/{name.as_posix()}".encode())
            for number, view in enumerate(views(open_image(path), seed, n_crops)):
                target = stem.with_name(f"{stem.name}-{number}.jpg")
                partial = target.with_suffix(".part")
                view.convert("RGB").save(partial, "JPEG", quality=QUALITY)
                os.replace(partial, target)
    return n
