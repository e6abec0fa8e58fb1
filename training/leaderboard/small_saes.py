"""Trains small SAEs on activations held in memory, also with a random decoder that stays as it is.

Knows `training.loop.trainer` and cached activations: architectures, sizes and seeds differ in nothing else.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from sae.backbones import Backbone
from sae.config import BackboneRef
from sae.metrics.reconstruction import ReconstructionMeter
from sae.metrics.stability import stability
from sae.model import SparseAutoencoder
from training.leaderboard.scenes import Half
from training.loop.config import TrainConfig
from training.loop.trainer import Trainee

FROZEN = "frozen"
"""In front of an architecture's name: its decoder stays random, only the rest learns."""


def train_small(
    name: str,
    tokens: Tensor,
    where: BackboneRef,
    *,
    d_sae: int,
    k: int,
    steps: int,
    batch: int,
    seed: int,
    tokens_per_image: int,
) -> SparseAutoencoder:
    """An SAE of an architecture (or "frozen <architecture>") after `steps` on `tokens (n, d)`.

    Every seed walks the same tokens in another order. Recipe: the training command's own defaults.
    """
    arch = name.removeprefix(FROZEN).strip()
    config = TrainConfig(
        where.id, "world", "unused", arch=arch, d_sae=d_sae, k=k, steps=steps, batch_size=batch,
        seed=seed, aux=1 / 8,
    )  # fmt: skip
    trainee = Trainee(config, tokens.shape[1], Accelerator(cpu=True))
    trainee.start(tokens[: 16 * batch], tokens_per_image)
    if name.startswith(FROZEN):
        trainee.weights.W_dec.requires_grad_(False)
    trainee.prepare()
    generator = torch.Generator().manual_seed(seed)
    order, place = torch.randperm(len(tokens), generator=generator), 0
    for number in tqdm(range(steps), desc=f"{name} {d_sae} seed {seed}", unit="step"):
        if place + batch > len(order):
            order, place = torch.randperm(len(tokens), generator=generator), 0
        trainee.step(tokens[order[place : place + batch]], number)
        place += batch
    return trainee.to_sae(where)


def reference(backbone: Backbone, layer: int) -> BackboneRef:
    """Where the small SAEs' activations come from."""
    return BackboneRef(
        backbone.id, backbone.resolve_layer(layer), "all", backbone.revision, backbone.family
    )


def reconstruction_of(sae: SparseAutoencoder, half: Half) -> dict[str, float]:
    """FVU, L0 and dead share on a half's activations of the tokens the SAE was made for."""
    meter = ReconstructionMeter(sae)
    x = half.x if sae.cfg.backbone.tokens == "all" else half.patches
    for part in x.split(64):
        meter.update(part)
    found = meter.result()
    return {"fvu": found.fvu, "l0": found.l0, "dead": found.dead_fraction}


def agreement(saes: Mapping[str, Sequence[SparseAutoencoder]]) -> dict[str, dict[str, Any]]:
    """Mean cosine of matched decoder rows (centred) between seeds, beside random dictionaries with
    the same covariance, for every name with two SAEs or more."""
    found = {}
    for name, seeds in saes.items():
        pairs = [stability(a.W_dec, b.W_dec, match=True) for a, b in combinations(seeds, 2)]
        if pairs:
            same = [pair.found.matched for pair in pairs]
            chance = [pair.null_covariance.matched for pair in pairs]
            found[name] = {
                key: {"mean": float(np.mean(values)), "std": None, "n": len(pairs)}
                for key, values in (
                    ("same directions in another seed", same),
                    ("… in random dictionaries", chance),
                )
            }
    return found
