"""Does a unit's map lie on the object? Peak, pointing game and overlap with the true mask.

Knows maps over a patch grid and masks. Knows nothing of models. Where a map is 0 everywhere the unit did
not fire: its peak is a miss and its overlap is 0.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Num, Shaped

COVERED = 0.5
"""Share of the peak's patch that the object has to cover for a hit."""


class Localization(NamedTuple):
    """One entry per map."""

    hit: Bool[np.ndarray, " n"]
    """The object covers at least half of the strongest patch."""
    pointing: Bool[np.ndarray, " n"]
    """The strongest patch's centre lies on the object, give or take the tolerance."""
    iou: Float64[np.ndarray, " n"]
    """Area shared by the patches at or above the threshold and the object, over their union."""


def localize(
    maps: Num[np.ndarray, "n rows columns"],
    masks: Shaped[np.ndarray, "n height width"],
    thresholds: Num[np.ndarray, " n"] | float,
    *,
    tolerance: float = 0.0,
) -> Localization:
    """Score maps `(n, rows, columns)` against pixel masks `(n, height, width)` bool, one object each.

    A map covers its mask's picture; height and width are multiples of rows and columns. `thresholds`
    `(n,)` or one number: a patch is lit if its value is at least that and not 0. `tolerance` is the
    pointing game's, in pixels. Every mask needs a visible pixel. Equal peaks: the first one counts.
    """
    maps, masks = np.asarray(maps, dtype=np.float64), np.asarray(masks, dtype=bool)
    n, rows, columns = maps.shape if maps.ndim == 3 else (0, 0, 0)
    if maps.ndim != 3 or masks.ndim != 3 or len(masks) != n:
        raise ValueError(
            f"localize: got maps {maps.shape} and masks {masks.shape}, expected (n, rows, columns) "
            "and (n, height, width)."
        )
    height, width = masks.shape[1] // max(rows, 1), masks.shape[2] // max(columns, 1)
    if masks.shape[1:] != (rows * height, columns * width):
        raise ValueError(
            f"localize: masks of {masks.shape[1:]} pixels do not divide into {rows} × {columns} patches."
        )
    if not masks.any((1, 2)).all():
        raise ValueError("localize: a mask has no pixel; leave objects out that cannot be seen.")
    cover = masks.reshape(n, rows, height, columns, width).mean((2, 4))
    peak = maps.reshape(n, -1).argmax(1)
    fires = maps.reshape(n, -1).any(1)
    row, column = np.unravel_index(peak, (rows, columns))
    hit = fires & (cover[np.arange(n), row, column] >= COVERED)
    centre_y, centre_x = (row + 0.5) * height - 0.5, (column + 0.5) * width - 0.5
    pointing = fires & (_distance(masks, centre_y, centre_x) <= max(tolerance, 0.75))
    lit = (maps >= np.asarray(thresholds, dtype=np.float64).reshape(-1, 1, 1)) & (maps != 0)
    shared = (lit * cover).sum((1, 2))
    union = lit.sum((1, 2)) + cover.sum((1, 2)) - shared
    return Localization(hit, pointing, shared / union)


def _distance(masks: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Pixels from each point to the nearest pixel of its mask. A patch of even size has its centre
    between pixels, 0.71 from the four around it."""
    distances = np.full(len(masks), np.inf)
    for number, mask in enumerate(masks):
        rows, columns = np.nonzero(mask)
        distances[number] = np.sqrt(((rows - y[number]) ** 2 + (columns - x[number]) ** 2).min())
    return distances
