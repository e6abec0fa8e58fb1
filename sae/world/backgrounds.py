"""The emoji world's procedural backgrounds. Knows numpy; knows nothing of objects or scenes."""

from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

_PALETTE: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "grass": ((96, 160, 60), (60, 120, 40)),
    "sand": ((228, 204, 148), (206, 176, 118)),
    "water": ((60, 130, 200), (110, 180, 226)),
    "sky": ((120, 184, 240), (222, 238, 252)),
    "night": ((14, 18, 48), (34, 36, 84)),
    "brick": ((176, 84, 64), (206, 196, 184)),
    "wood": ((158, 112, 66), (118, 78, 42)),
    "snow": ((238, 244, 250), (206, 220, 236)),
    "stripes": ((236, 180, 200), (250, 240, 244)),
    "dots": ((250, 236, 180), (226, 120, 90)),
    "checkers": ((210, 210, 214), (90, 92, 104)),
    "plain": ((190, 190, 190), (190, 190, 190)),
}
BACKGROUNDS = tuple(_PALETTE)
"""Names of all backgrounds."""


def paint_background(name: str, size: int, seed: int) -> UInt8[np.ndarray, "size size 3"]:
    """A fresh uint8 (size, size, 3) picture of background `name`; `seed` varies colour and texture."""
    rng = np.random.Generator(np.random.PCG64(seed))
    first, second = (np.asarray(colour, dtype=np.float32) for colour in _PALETTE[name])
    shift = rng.uniform(-14, 14, 3).astype(np.float32)
    if name == "plain":
        colour = rng.uniform(70, 235, 3).astype(np.float32)
        return np.broadcast_to(colour.astype(np.uint8), (size, size, 3)).copy()
    mix = _MIXES[name](rng, size)[..., None]
    picture = first + shift + (second - first) * mix
    return np.clip(picture, 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def _noise(coarse: int) -> np.ndarray:
    """A fixed smooth 256 × 256 noise in [0, 1] with blobs of about `coarse` pixels, cut at random offsets."""
    rng = np.random.Generator(np.random.PCG64(coarse))
    cells = 256 // coarse
    grid = rng.random((cells, cells), dtype=np.float32)
    grid = np.pad(grid, ((0, 1), (0, 1)), mode="wrap")
    at = np.arange(256, dtype=np.float32) / coarse
    low = at.astype(int)
    part = at - low
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _cut(rng: np.random.Generator, size: int, coarse: int) -> np.ndarray:
    y, x = rng.integers(0, 256 - size, 2)
    return _noise(coarse)[y : y + size, x : x + size]


def _axes(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column numbers, (size, 1) and (1, size), with a random phase."""
    y0, x0 = rng.integers(0, 64, 2)
    return np.arange(y0, y0 + size)[:, None], np.arange(x0, x0 + size)[None, :]


def _grass(rng: np.random.Generator, size: int) -> np.ndarray:
    blades = _cut(rng, size, 2)
    return 0.7 * np.maximum(blades, np.roll(blades, 2, axis=0)) + 0.4 * _cut(rng, size, 16)


def _sand(rng: np.random.Generator, size: int) -> np.ndarray:
    return 0.5 * _cut(rng, size, 1) + 0.5 * _cut(rng, size, 8)


def _water(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = _axes(rng, size)
    return 0.5 + 0.5 * np.sin(rows * 0.7 + 2.2 * np.sin(columns * 0.12) + 3 * _cut(rng, size, 16))


def _sky(rng: np.random.Generator, size: int) -> np.ndarray:
    height = np.linspace(0, 0.6, size, dtype=np.float32)[:, None]
    return height + np.clip(2.2 * _cut(rng, size, 16) - 1.2, 0, 1)


def _night(rng: np.random.Generator, size: int) -> np.ndarray:
    mix = np.repeat(np.linspace(0, 0.8, size, dtype=np.float32)[:, None], size, axis=1)
    stars = rng.integers(0, size, (2, 26))
    mix[stars[0], stars[1]] = 4.5
    return mix


def _brick(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = _axes(rng, size)
    shifted = columns + 8 * (rows // 8 % 2)
    joints = (rows % 8 == 0) | (shifted % 16 == 0)
    return np.where(joints, 1.0, 0.25 * _cut(rng, size, 4))


def _wood(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, _ = _axes(rng, size)
    grain = 0.5 + 0.5 * np.sin(rows * 0.9 + 5 * _cut(rng, size, 32).T)
    return np.where(rows % 24 == 0, 1.4, 0.7 * grain)


def _snow(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.clip(1.6 * _cut(rng, size, 32) - 0.2, 0, 1) + 0.15 * _cut(rng, size, 2)


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = _axes(rng, size)
    return ((rows + columns) // 6 % 2).astype(np.float32)


def _dots(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = _axes(rng, size)
    return ((rows % 14 - 7) ** 2 + (columns % 14 - 7) ** 2 < 14).astype(np.float32)


def _checkers(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = _axes(rng, size)
    return ((rows // 10 + columns // 10) % 2).astype(np.float32)


_MIXES = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "sky": _sky,
    "night": _night,
    "brick": _brick,
    "wood": _wood,
    "snow": _snow,
    "stripes": _stripes,
    "dots": _dots,
    "checkers": _checkers,
}
