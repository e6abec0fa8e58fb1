"""What an SAE is held against: as many numbers a token, kept as raw neurons or as principal components.

Knows how baselines are fitted, reconstruct and are measured. Knows nothing of SAEs but where they read.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae.backbones import Backbone
from sae.metrics.baselines import LinearUnits, pca
from sae.model import SparseAutoencoder
from training.data.feeds import held_out_activations
from training.data.sources import ImageSource
from training.data.store import StoredRows, check_fits

FIT_IMAGES = 400
"""Training images that the baselines are fitted on."""
FIT_TOKENS = 200_000


class Baselines:
    """FVU of keeping k numbers a token: the largest raw neurons, or the first k components."""

    def __init__(self, fitted_on: Float[Tensor, "tokens d_in"]) -> None:
        self._units: LinearUnits = pca(fitted_on)
        d = fitted_on.shape[1]
        self._components, self._neurons = (torch.zeros(d, dtype=torch.float64) for _ in range(2))
        self._total, self._n = 0.0, 0
        self._sum, self._squares = torch.zeros(d, dtype=torch.float64), 0.0

    def update(self, activations: Float[Tensor, "images tokens d_in"]) -> None:
        """Add activations `(images, tokens, d_in)`."""
        x = activations.flatten(0, 1).float().cpu()
        away = x - self._units.centre
        self._components += self._units(x).double().square().sum(0)
        squares = away.double().square()
        self._neurons += squares.sort(dim=1, descending=True).values.sum(0)
        self._total += float(squares.sum())
        self._sum += away.double().sum(0)
        self._n += len(x)

    def at(self, l0: float) -> dict[str, Any]:
        """FVU at k = the SAE's L0, rounded."""
        k = self._k(l0)
        spread = self._total - float(self._sum.square().sum()) / self._n
        kept = {"pca_fvu": self._components, "raw_neurons_fvu": self._neurons}
        return {"k": k} | {
            name: (self._total - float(parts[:k].sum())) / spread for name, parts in kept.items()
        }

    def reconstructions(
        self, l0: float
    ) -> dict[str, Callable[[Float[Tensor, "*tokens d_in"]], Float[Tensor, "*tokens d_in"]]]:
        """Activations `(*, d_in)` as each baseline keeps them, with k numbers a token."""
        k, centre, directions = self._k(l0), self._units.centre, self._units.directions

        def components(x: Tensor) -> Tensor:
            first = directions[:k].to(x.device)
            away = x.float() - centre.to(x.device)
            return centre.to(x.device) + away @ first.T @ first

        def neurons(x: Tensor) -> Tensor:
            away = x.float() - centre.to(x.device)
            kept = away.abs().topk(k, dim=-1).indices
            sparse = torch.zeros_like(away).scatter_(-1, kept, away.gather(-1, kept))
            return centre.to(x.device) + sparse

        return {"pca": components, "raw_neurons": neurons}

    def _k(self, l0: float) -> int:
        return max(1, min(len(self._sum), round(l0)))


def fitting_activations(
    source: Any, held_out: Any, trained: SparseAutoencoder, backbone: Backbone, image_batch: int
) -> tuple[Float[Tensor, "tokens d_in"], str]:
    """Activations `(tokens, d_in)` that the baselines are fitted on, and whose they are.

    Those of up to FIT_IMAGES training images, or as many rows of a store; where these are not at
    hand, the measured ones themselves, which is in the baselines' favour.
    """
    where = trained.cfg.backbone
    if isinstance(source, StoredRows):
        plan = source.manifest.plan
        with contextlib.suppress(ValueError):  # a store of something else is of no use here
            check_fits(plan, source.folder, backbone, where.layer, plan.tokens)
            rows = source.some(FIT_TOKENS)
            return rows, f"{len(rows)} tokens of {source.name}"
    name = "the measured images themselves, in the baselines' favour"
    if isinstance(source, ImageSource) and source is not held_out:
        some = np.arange(FIT_IMAGES) if source.numbers is None else source.numbers[:FIT_IMAGES]
        held_out = replace(source, numbers=some)
        name = f"{len(some)} training images ({source.name})"
    tokens, n = [], 0
    for batch in held_out_activations(
        held_out, backbone, where.layer, where.tokens, image_batch=image_batch
    ):
        tokens.append(batch.flatten(0, 1).float().cpu())
        n += len(tokens[-1])
        if n >= FIT_TOKENS:
            break
    if not tokens:
        raise ValueError(f"not one image of {name} can be read; give other --data.")
    return torch.cat(tokens), name
