"""Samples scenes of the emoji world. Knows the composer; knows nothing of captions' words or models."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sae.world.backgrounds import BACKGROUNDS
from sae.world.scenes import (
    ANGLES,
    MAX_OBJECTS,
    OBJECT_SIZES,
    SIZE,
    TRAINING_STYLES,
    Scene,
    SceneObject,
    compose,
    kind_names,
)

N_OBJECTS_SHARE = (0.5, 0.32, 0.18)
"""How often a scene holds one, two, three objects."""


def sample_scene(
    rng: np.random.Generator,
    *,
    n_objects: int | None = None,
    styles: tuple[str, ...] = TRAINING_STYLES,
    kinds: tuple[str, ...] | None = None,
) -> Scene:
    """A random scene of `n_objects` (default: 1 to 3) different kinds that hardly overlap."""
    n = n_objects if n_objects is not None else 1 + int(rng.choice(MAX_OBJECTS, p=N_OBJECTS_SHARE))
    names = kinds or kind_names()
    chosen = rng.choice(len(names), n, replace=False)
    sizes = [str(rng.choice(list(OBJECT_SIZES))) for _ in range(n)]
    if n == MAX_OBJECTS:
        sizes = ["small" if i else size for i, size in enumerate(sizes)]
    objects: list[SceneObject] = []
    centres: list[tuple[int, int, int]] = []
    for number, size in zip(chosen, sizes, strict=True):
        half = OBJECT_SIZES[size] // 2
        x, y = _free_place(rng, centres, half)
        centres.append((x, y, half))
        objects.append(
            SceneObject(names[number], str(rng.choice(styles)), x, y, size, int(rng.choice(ANGLES)))
        )
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    return Scene(background, tuple(objects), int(rng.integers(2**32)))


def _free_place(
    rng: np.random.Generator, taken: list[tuple[int, int, int]], half: int
) -> tuple[int, int]:
    """A centre whose square overlaps the taken squares least, of at most 24 tries."""
    best, best_overlap = (SIZE // 2, SIZE // 2), np.inf
    for _ in range(24):
        x, y = (int(v) for v in rng.integers(half, SIZE - half, 2, endpoint=True))
        overlap = sum(
            max(0, half + h - abs(x - tx)) * max(0, half + h - abs(y - ty)) for tx, ty, h in taken
        )
        if overlap < best_overlap:
            best, best_overlap = (x, y), overlap
        if overlap == 0:
            break
    return min(best[0], SIZE - 1), min(best[1], SIZE - 1)


def scenes(seed: int, **options: Any) -> Iterator[Scene]:
    """An endless stream of scenes; the same seed and options give the same stream."""
    rng = np.random.Generator(np.random.PCG64(seed))
    while True:
        yield sample_scene(rng, **options)


def images(
    seed: int, n: int, **options: Any
) -> tuple[UInt8[np.ndarray, "images size size 3"], list[Scene]]:
    """The first `n` scenes of stream `seed`, drawn: uint8 (n, SIZE, SIZE, 3), and their descriptions."""
    stream = scenes(seed, **options)
    chosen = [next(stream) for _ in range(n)]
    return np.stack([compose(scene).image for scene in chosen]), chosen
