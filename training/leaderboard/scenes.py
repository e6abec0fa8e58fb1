"""The scenes that everything is scored on: their activations, and what is true of them.

Knows a backbone, the scene generator and masks. Knows nothing of SAEs. A factor is one value of a family:

    kind         120 object kinds             realm   animal, food, …
    group        18 wider groups              size    small, large
    background   12                           style   the drawing styles of the scenes

An image has a factor if an object shows at least one pixel with it (or it is its background). A patch has
it if objects with it cover at least half of the patch, or if at least half of it is that background.
"""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from PIL import Image
from scipy import sparse
from torch import Tensor
from tqdm import tqdm

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.world.backgrounds import BACKGROUNDS
from sae.world.scenes import (
    OBJECT_SIZES,
    SIZE,
    TRAINING_STYLES,
    Scene,
    compose,
    kind_names,
    kinds,
    patch_labels,
)
from training.leaderboard.kept import Kept
from training.world.generator import scenes

BATCH = 32
FAMILIES = ("kind", "group", "realm", "background", "size", "style")
COVERED = 0.5


class Instance(NamedTuple):
    """An object that can be seen in a scene."""

    scene: int
    kind: int
    """Number of its kind among `kind_names()`."""
    mask: Bool[np.ndarray, "size size"]
    """bool (SIZE, SIZE): its visible pixels."""


class Factors(NamedTuple):
    """Truth about scenes."""

    names: tuple[tuple[str, str], ...]
    """(family, value) of each factor."""
    image: sparse.csr_array
    """bool `(n_scenes, n_factors)`."""
    patch: sparse.csr_array
    """bool `(n_scenes × patches, n_factors)`, patches row by row."""
    instances: list[Instance]

    def paths(self, n_scenes: int) -> list[tuple[str, ...]]:
        """(realm, group, kind) of the object of which most is seen in each scene; () without one."""
        best: list[tuple[int, tuple[str, ...]]] = [(0, ())] * n_scenes
        for scene, number, mask in self.instances:
            kind, area = kinds()[number], int(mask.sum())
            if area > best[scene][0]:
                best[scene] = area, (kind.realm, kind.group, kind.name)
        return [path for _, path in best]

    def family(self, name: str) -> Bool[np.ndarray, " factors"]:
        """`(n_factors,)` bool: the factors of a family."""
        return np.array([family == name for family, _ in self.names])


def factor_names(styles: Sequence[str] = TRAINING_STYLES) -> tuple[tuple[str, str], ...]:
    """(family, value) of all factors, family by family."""
    values = {
        "kind": kind_names(),
        "group": dict.fromkeys(kind.group for kind in kinds()),
        "realm": dict.fromkeys(kind.realm for kind in kinds()),
        "background": BACKGROUNDS,
        "size": OBJECT_SIZES,
        "style": styles,
    }
    return tuple((family, value) for family in FAMILIES for value in values[family])


def factors_of(
    scenes: Sequence[Scene], patch: int, *, styles: Sequence[str] = TRAINING_STYLES
) -> Factors:
    """The truth about `scenes` for patches of `patch` pixels."""
    names = factor_names(styles)
    number = {name: place for place, name in enumerate(names)}
    by_name = {kind.name: (place, kind) for place, kind in enumerate(kinds())}
    instances: list[Instance] = []
    in_image: list[tuple[int, int]] = []
    in_patch: list[tuple[np.ndarray, np.ndarray]] = []
    n_patches = 0
    for place, scene in enumerate(scenes):
        masks = compose(scene).masks
        n_patches = (masks.shape[1] // patch) * (masks.shape[2] // patch)
        cover = patch_labels(masks, patch).reshape(len(masks), n_patches)
        of_factor: dict[int, np.ndarray] = {}
        for item, mask, share in zip(scene.objects, masks, cover, strict=True):
            if not mask.any():
                continue
            kind_number, kind = by_name[item.kind]
            instances.append(Instance(place, kind_number, mask))
            has = [("kind", kind.name), ("group", kind.group), ("realm", kind.realm)]
            for name in (*has, ("size", item.size), ("style", item.style)):
                factor = number[name]
                of_factor[factor] = of_factor.get(factor, 0) + share
        background = number["background", scene.background]
        of_factor[background] = 1 - cover.sum(0) if len(cover) else np.ones(n_patches)
        for factor, share in of_factor.items():
            in_image.append((place, factor))
            rows = np.flatnonzero(share >= COVERED) + place * n_patches
            in_patch.append((rows, np.full(len(rows), factor)))
    rows, columns = (np.concatenate(part) for part in zip(*in_patch, strict=True))
    image, factor_of = np.array(in_image).T
    return Factors(
        names,
        _labels(image, factor_of, (len(scenes), len(names))),
        _labels(rows, columns, (len(scenes) * n_patches, len(names))),
        instances,
    )


def _labels(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=shape)


class Half(NamedTuple):
    """Scenes with their activations and their truth."""

    x: Float32[Tensor, "scenes tokens d_in"]
    """float32 `(n_scenes, tokens, d)`, prefix tokens first."""
    factors: Factors
    tokens: TokenView
    """What the tokens of `x` are."""

    def view(self, policy: str) -> TokenView:
        """The tokens that an SAE of this policy reads."""
        return TokenView(self.tokens, policy)


def activations_of(
    backbone: Backbone,
    layer: int,
    seed: int,
    n: int,
    what: str,
    *,
    styles: Sequence[str] = TRAINING_STYLES,
) -> Float32[Tensor, "scenes tokens d_in"]:
    """Activations `(n, tokens, d)` of the first `n` scenes of stream `seed`."""
    chosen, parts = list(islice(scenes(seed, styles=tuple(styles)), n)), []
    with torch.inference_mode():
        for start in tqdm(range(0, n, BATCH), desc=what, unit="batch"):
            pictures = [Image.fromarray(compose(s).image) for s in chosen[start : start + BATCH]]
            parts.append(backbone.activations(pictures, layer).float().cpu())
    return torch.cat(parts).clone()


def two_halves(
    backbone: Backbone,
    layer: int,
    seed: int,
    n_scenes: int,
    kept: Kept | None = None,
    *,
    styles: Sequence[str] = TRAINING_STYLES,
) -> tuple[Half, Half]:
    """`n_scenes` scenes of stream `seed` in two halves: one to choose units, one to score them."""
    rows, columns = backbone.patch_grid
    if rows != columns or SIZE % rows:
        raise ValueError(
            f"{backbone.id} has {rows} × {columns} patches; scenes of {SIZE} pixels need a square "
            "grid that divides them. Score SAEs of the bundled backbone or one of the same grid."
        )
    what = "scenes to score on"
    chosen = list(islice(scenes(seed, styles=tuple(styles)), n_scenes))
    x = (kept or Kept(None, {})).tensor(
        what, lambda: activations_of(backbone, layer, seed, n_scenes, what, styles=styles)
    )
    view = TokenView(backbone, "all")
    x = x[:, view.image]
    middle = n_scenes // 2
    first, second = (
        Half(x[part], factors_of(chosen[part], SIZE // rows, styles=styles), view)
        for part in (slice(0, middle), slice(middle, n_scenes))
    )
    return first, second


def patch_sample(
    n_scenes: int, n_patches: int, share: float, seed: int
) -> Int64[np.ndarray, " patches"]:
    """Sorted numbers of a random share of all patches of `n_scenes` scenes."""
    n = n_scenes * n_patches
    return np.sort(np.random.default_rng(seed).choice(n, max(1, round(share * n)), replace=False))
