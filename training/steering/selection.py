"""Which latent stands for an object kind, and the DiffMean baseline, from selection scenes.

Knows the world and activations; steers nothing. Selection scenes are held out from all training and
are not the scenes that steering is measured on. Both methods get the same labels: which kinds an
image shows, and nothing of where.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.metrics.auroc import auroc
from sae.steering import Steerer
from sae.world.scenes import OBJECT_SIZES, SIZE, Scene, SceneObject, kind_names
from training.world.generator import HELD_OUT_SEED, images

SELECTION_SEED = HELD_OUT_SEED + 9000


@dataclass(frozen=True)
class Selection:
    """Per kind, in the order of `kind_names()`."""

    latents: list[list[int]]
    """Latents by image-level AUROC, best first."""
    auroc: np.ndarray
    """That of the best latent."""
    diff_mean: Tensor
    """(kinds, d): mean activation of images with the kind minus that of images without, over all
    tokens of an image."""
    diff_mean_masks: Tensor
    """(kinds, d): the same from the patches that the object covers, minus the mean token: told the
    objects' masks, which neither method gets otherwise."""
    mean: Tensor
    """(d): the mean token."""


@torch.no_grad()
def select(steerer: Steerer, n_scenes: int, *, n_latents: int = 8) -> Selection:
    """Score every latent (mean over tokens, PatchSAE's image-level activation) for every kind."""
    backbone, names = steerer.backbone, kind_names()
    pictures, scenes = images(SELECTION_SEED, n_scenes)
    labels = np.array([[name in {o.kind for o in s.objects} for name in names] for s in scenes])
    scores, means, covered, mean = _read(backbone, steerer, pictures, scenes)
    table = auroc(scores, labels)
    best = np.argsort(-np.nan_to_num(table), axis=0)[:n_latents]
    shown = torch.from_numpy(labels)
    diff = torch.stack(
        [means[shown[:, k]].mean(0) - means[~shown[:, k]].mean(0) for k in range(len(names))]
    )
    return Selection(
        best.T.tolist(), table[best[0], np.arange(len(names))], diff, covered - mean, mean
    )


def _read(
    backbone: Backbone, steerer: Steerer, pictures: np.ndarray, scenes: list[Scene]
) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    sae, names = steerer.sae, {name: n for n, name in enumerate(kind_names())}
    scores, means = [], []
    covered, count = torch.zeros(len(names), sae.cfg.d_in), torch.zeros(len(names), 1)
    for start in range(0, len(pictures), 64):
        batch = [Image.fromarray(picture) for picture in pictures[start : start + 64]]
        x = backbone.activations(batch, steerer.layer)
        code = sae.encode_sparse(x)
        row = torch.zeros(len(batch), sae.cfg.d_sae)
        scores.append(
            row.scatter_add(1, code.indices.flatten(1), code.values.flatten(1)) / x.shape[1]
        )
        means.append(x.mean(1))
        for h, scene in zip(x, scenes[start : start + 64], strict=True):
            for item in scene.objects:
                under = h[1:][torch.from_numpy(patches_under(item, backbone.patch_grid))]
                covered[names[item.kind]] += under.sum(0)
                count[names[item.kind]] += len(under)
    rows = torch.cat(means)
    return torch.cat(scores).numpy(), rows, covered / count.clamp(min=1), rows.mean(0)


def patches_under(item: SceneObject, grid: tuple[int, int], *, shrink: float = 0.8) -> np.ndarray:
    """Bool (patches): those whose middle lies in the object's square, a little shrunk."""
    half = OBJECT_SIZES[item.size] / 2 * shrink
    rows, columns = ((np.arange(n) + 0.5) * SIZE / n for n in grid)
    inside = (np.abs(rows[:, None] - item.y) < half) & (np.abs(columns[None] - item.x) < half)
    return inside.reshape(-1)
