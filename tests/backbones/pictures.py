"""Pictures that tests make: noise, and a rectangle of one colour on another."""

import numpy as np
from PIL import Image


def noise(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Random RGB pixels."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """White inside `box` (left, top, right, bottom), black outside."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Image.fromarray(pixels)
