"""How well and how sparsely an SAE reconstructs activations.

Knows three figures and accumulates them over batches in float64. Knows nothing of images, files
or training.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sae.model import SparseAutoencoder
from sae.sparse import tokens_per_chunk


class Reconstruction(NamedTuple):
    """Figures over all tokens seen."""

    fvu: float
    """sum ||x - x_hat||^2 / sum ||x - mean x||^2: the share of variance left unexplained."""
    l0: float
    """Active latents per token, on average."""
    dead_fraction: float
    """Share of latents that were active on no token."""
    n_tokens: int
    """Tokens measured."""


class ReconstructionMeter:
    """Accumulates `Reconstruction` over batches of activations `(*batch, d_in)`."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae = sae
        device = sae.W_enc.device
        self._sum = torch.zeros(sae.cfg.d_in, dtype=torch.float64, device=device)
        self._fired = torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=device)
        self._squares = self._error = self._active = 0.0
        self._n_tokens = 0

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Add a batch of raw activations."""
        flat = x.reshape(-1, x.shape[-1]).to(self._sae.W_enc)
        for chunk in flat.split(tokens_per_chunk(self._sae.cfg.d_sae)):
            self._add(chunk)

    def _add(self, x: Tensor) -> None:
        latents = self._sae.encode(x)
        wide, active = x.double(), latents > 0
        self._error += float((wide - self._sae.decode(latents)).square().sum())
        self._squares += float(wide.square().sum())
        self._sum += wide.sum(0)
        self._fired |= active.any(0)
        self._active += int(active.sum())
        self._n_tokens += len(x)

    def result(self) -> Reconstruction:
        """The figures so far; ValueError if no token was added or all were the same."""
        n = self._n_tokens
        variance = self._squares - float(self._sum.square().sum()) / max(n, 1)
        if n == 0 or variance <= 0:
            raise ValueError(f"FVU needs tokens that differ; {n} tokens were added.")
        dead = 1.0 - float(self._fired.double().mean())
        return Reconstruction(self._error / variance, self._active / n, dead, n)
