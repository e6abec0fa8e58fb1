"""Units of any kind on scenes, and their figures against the truth of the scenes.

Units are SAE latents (sparse) or linear units (dense, of two signs). Knows values of units and factors.
Units, signs and thresholds are chosen on the first half of the scenes; every figure is of the second half.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Num
from scipy import sparse
from torch import Tensor

from sae.metrics.baselines import LinearUnits
from sae.metrics.exemplars import top_images
from sae.metrics.hierarchy import chance_depth, depth_by_group, lca_depth
from sae.metrics.localization import localize
from sae.metrics.probing import sparse_probing
from sae.metrics.truth import FactorScores, column, score_factors
from sae.model import SparseAutoencoder
from sae.sparse import SparseLatents
from training.leaderboard.scenes import FAMILIES, Factors, Half, patch_sample

SCENES_AT_ONCE = 64
N_EXEMPLARS = 16
"""Top images of a latent that its depth is taken over (Pach et al.)."""
PROBES = (1, 5)
"""Units that a kind's sparse probe may use."""
PATCH_SHARE = 0.25
"""Share of patches, of every scene alike, that patch-level AUROC and F1 are taken on."""
TOLERANCE = 4
"""Pixels by which the pointing game may miss: a 24th of a scene, as 15 of 224 pixels are a 15th."""


Encode = Callable[[Float[Tensor, "tokens d_in"]], SparseLatents]
"""Activations to the units that fire, strongest first: `(tokens, n)`."""


class Values(NamedTuple):
    """Values of units on the scenes of a half."""

    patch: Num[np.ndarray, "patches units"] | sparse.csc_array
    """`(n_scenes × patches, n_units)`."""
    mean: Num[np.ndarray, "scenes units"] | sparse.csc_array
    """Per image, over all tokens (PatchSAE's image-level activation): `(n_scenes, n_units)`."""
    maximum: Num[np.ndarray, "scenes units"] | sparse.csc_array
    """Per image, over all tokens. Dense units of two signs: the maxima of u, then those of -u."""

    def maps(
        self, unit: int, scenes: Int[np.ndarray, " scenes"], grid: tuple[int, int]
    ) -> Float32[np.ndarray, "scenes rows columns"]:
        """Maps `(len(scenes), rows, columns)` of a unit; n + u of n dense units is -unit u."""
        rows, values = column(self.patch, unit)
        whole = np.zeros(self.patch.shape[0], np.float32)
        whole[rows] = values
        return whole.reshape(-1, *grid)[scenes]


class Units(Protocol):
    """A family of units: latents of an SAE, neurons, components."""

    signed: bool
    """Whether a unit may also stand for something by its negative values."""

    def values(self, half: Half) -> Values:
        """Values of all units on a half."""
        ...


class SparseUnits:
    """Units of one sign of which few fire; image-level values are taken over the tokens of a policy."""

    signed = False

    def __init__(self, encode: Encode, n_units: int, policy: str) -> None:
        self._encode, self._n_units, self._policy = encode, n_units, policy

    @torch.inference_mode()
    def values(self, half: Half) -> Values:
        """Values of all units on a half."""
        view = half.view(self._policy)
        x, skip = view.read(half.x), view.patches.start
        n_tokens, parts = x.shape[1], []
        for start in range(0, len(x), SCENES_AT_ONCE):
            some = x[start : start + SCENES_AT_ONCE]
            flat = self._encode(some.flatten(0, 1))
            code = SparseLatents(*(part.unflatten(0, some.shape[:2]) for part in flat))
            where = (code.values != 0).nonzero(as_tuple=True)
            entries = (where[0] + start, where[1], code.values[where], code.indices[where])
            parts.append([part.numpy() for part in entries])
        scene, token, value, latent = (np.concatenate(part) for part in zip(*parts, strict=True))
        shape = (len(x), self._n_units)
        on_patch = token >= skip
        n_patches = n_tokens - skip
        row = scene[on_patch] * n_patches + token[on_patch] - skip
        patch = sparse.csc_array(
            (value[on_patch], (row, latent[on_patch])), shape=(len(x) * n_patches, shape[1])
        )
        total = sparse.csc_array((value / n_tokens, (scene, latent)), shape=shape)
        return Values(patch, total, _maximum(scene, latent, value, shape))


class Latents(SparseUnits):
    """The latents of an SAE."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        if sae.cfg.backbone.tokens == "cls":
            raise ValueError("an SAE of the CLS token has no patches to be scored on.")
        super().__init__(sae.encode_sparse, sae.cfg.d_sae, sae.cfg.backbone.tokens)


def _maximum(
    row: np.ndarray, column_: np.ndarray, value: np.ndarray, shape: tuple[int, int]
) -> sparse.csc_array:
    """The largest of the values that fall on the same place."""
    key = column_.astype(np.int64) * shape[0] + row
    order = np.lexsort((value, key))
    key, value = key[order], value[order]
    last = np.flatnonzero(np.r_[key[1:] != key[:-1], True])
    places = key[last]
    return sparse.csc_array((value[last], (places % shape[0], places // shape[0])), shape=shape)


class Linear:
    """Linear units of two signs, such as `sae.metrics.baselines` makes."""

    signed = True

    def __init__(self, make: LinearUnits) -> None:
        self._make = make

    @torch.inference_mode()
    def values(self, half: Half) -> Values:
        values = self._make(half.x)
        patch = half.view("patches").read(values).reshape(-1, values.shape[-1])
        both = torch.cat([values.amax(1), -values.amin(1)], dim=1)
        return Values(patch.numpy(), values.mean(1).numpy(), both.numpy())


def score_units(
    units: Units, halves: tuple[Half, Half], *, probes: bool = True
) -> dict[str, float]:
    """All figures by name: "patch f1 kind", "image completeness", "iou", … `probes`: fit those of kinds
    too, which takes longest."""
    values = [units.values(half) for half in halves]
    figures: dict[str, float] = {"units": float(values[0].patch.shape[1])}
    patch = _at_patches(values, halves, units.signed)
    levels = {
        "patch": patch,
        "image": _at_images([v.maximum for v in values], halves, False),
        "image mean": _at_images([v.mean for v in values], halves, units.signed),
    }
    for level, scores in levels.items():
        figures |= _summary(level, scores, halves[1].factors)
    figures |= _localisation(patch, values[1], halves[1])
    return figures | (_probing([v.maximum for v in values], halves) if probes else {})


def depth_of(sae: SparseAutoencoder, half: Half) -> dict[str, float]:
    """How deep in the taxonomy (realm, group, kind) the scenes of a latent's 16 exemplars meet, by
    their largest objects, beside any two scenes' depth; for matryoshka by group too."""
    paths = half.factors.paths(len(half.x))
    exemplars = top_images(Latents(sae).values(half).maximum, N_EXEMPLARS)
    depth = lca_depth(exemplars.images, paths)
    sizes = sae.cfg.group_sizes or (sae.cfg.d_sae,)
    groups = {
        f"depth group {number}": group.mean
        for number, group in enumerate(depth_by_group(depth, sizes), 1)
    }
    whole = depth_by_group(depth, (len(depth),))[0]
    return {"depth": whole.mean, "depth of any two": chance_depth(paths), **groups}


def _at_patches(values: list[Values], halves: tuple[Half, Half], signed: bool) -> FactorScores:
    sides = []
    for number, (value, half) in enumerate(zip(values, halves, strict=True)):
        rows = patch_sample(len(half.x), half.tokens.n_patches, PATCH_SHARE, number)
        units: Any = value.patch
        chosen = units.tocsr()[rows].tocsc() if sparse.issparse(units) else units[rows]
        sides.append((chosen, half.factors.patch[rows]))
    return score_factors(*sides, signed=signed)


def _at_images(
    units: list[np.ndarray | sparse.csc_array], halves: tuple[Half, Half], signed: bool
) -> FactorScores:
    sides = [(u, half.factors.image) for u, half in zip(units, halves, strict=True)]
    return score_factors(*sides, signed=signed)


def _summary(level: str, scores: FactorScores, factors: Factors) -> dict[str, float]:
    """Means over factors of a family, and over families, so that 120 kinds do not drown 2 sizes."""
    figures: dict[str, float] = {}
    for name in ("auroc", "f1"):
        by_family = {}
        for family in FAMILIES:
            part = getattr(scores, name)[factors.family(family) & scores.measured]
            by_family[family] = float(part.mean()) if len(part) else float("nan")
        figures |= {f"{level} {name} {family}": mean for family, mean in by_family.items()}
        figures[f"{level} {name}"] = float(np.nanmean(list(by_family.values())))
    figures[f"{level} completeness"] = scores.completeness()
    figures[f"{level} kinds at 0.9"] = scores.completeness(factors.family("kind"))
    figures[f"{level} redundancy"] = scores.redundancy()
    figures[f"{level} distinct"] = scores.distinct()
    figures[f"{level} median kind"] = float(np.nanmedian(scores.auroc[factors.family("kind")]))
    return figures


def _probing(units: list, halves: tuple[Half, Half]) -> dict[str, float]:
    """Test AUROC of the kinds from one unit and from a few, chosen and fitted on the first half."""
    stacked = (
        sparse.vstack(units, format="csc") if sparse.issparse(units[0]) else np.concatenate(units)
    )
    labels = [half.factors.image[:, half.factors.family("kind")].toarray() for half in halves]
    train = np.arange(stacked.shape[0]) < len(labels[0])
    probes = sparse_probing(stacked, np.concatenate(labels), ks=PROBES, train=train)
    return {f"probe {k}": area for k, (area, _) in probes.means().items()}


def _localisation(patch: FactorScores, held: Values, half: Half) -> dict[str, float]:
    """Mean over kinds of how well the kind's unit lies on its objects."""
    kinds = np.flatnonzero(half.factors.family("kind"))
    by_kind: dict[int, list[int]] = {}
    for number, instance in enumerate(half.factors.instances):
        by_kind.setdefault(instance.kind, []).append(number)
    rows = []
    for kind, factor in enumerate(kinds):
        unit, numbers = int(patch.f1_unit[factor]), by_kind.get(kind, [])
        if unit < 0 or not numbers:
            continue
        instances = [half.factors.instances[number] for number in numbers]
        maps = held.maps(unit, np.array([one.scene for one in instances]), half.tokens.patch_grid)
        masks = np.stack([one.mask for one in instances])
        placed = localize(maps, masks, patch.threshold[factor], tolerance=TOLERANCE)
        rows.append([placed.hit.mean(), placed.pointing.mean(), placed.iou.mean()])
    means = np.mean(rows, axis=0) if rows else [float("nan")] * 3
    return dict(zip(("top patch hit", "pointing game", "iou"), map(float, means), strict=True))
