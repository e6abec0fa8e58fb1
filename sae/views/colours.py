"""The colour scale of every activation map: viridis, dark blue to yellow.

Knows: sRGB and relative luminance. Does not know: what is drawn with it.
The scale is monotone in luminance, so it reads the same in grey and with any colour blindness.
"""

import numpy as np
from jaxtyping import Float64, Shaped, UInt8

ANCHORS: tuple[tuple[int, int, int], ...] = (
    (68, 1, 84),
    (72, 40, 120),
    (62, 74, 137),
    (49, 104, 142),
    (38, 130, 142),
    (31, 158, 137),
    (53, 183, 121),
    (109, 205, 89),
    (180, 222, 44),
    (253, 231, 37),
)
"""Ten points of viridis, evenly spaced from 0 to 1."""


def lookup_table(n: int = 256) -> UInt8[np.ndarray, "{n} 3"]:
    """The scale as uint8 (n, 3), linear between the anchors."""
    at = np.linspace(0, len(ANCHORS) - 1, n)
    columns = [np.interp(at, np.arange(len(ANCHORS)), c) for c in np.asarray(ANCHORS, float).T]
    return np.rint(np.stack(columns, 1)).astype(np.uint8)


def luminance(rgb: Shaped[np.ndarray, "*any 3"]) -> Float64[np.ndarray, "*any"]:
    """Relative luminance (WCAG 2.2) of sRGB bytes (..., 3), between 0 and 1."""
    part = np.asarray(rgb, float) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])
