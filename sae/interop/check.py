"""Whether the folded SAE computes what its library computes, on activations made for the purpose.

Knows how to make activations that an SAE answers to and how far two answers may differ. One side is
PatchLens' weights, the other the format's own equations (`sae.interop.equations`, or a reader's
`Reading.reference`), which share no code with the reader. Knows no formats, and not the model class:
what is compared is a pair of functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae.architectures import architecture
from sae.config import SAEConfig
from sae.interop.foreign import Run

MIN_TOKENS, MAX_TOKENS, PAIRS = 32, 2048, 1 << 21
"""How many tokens: as many as make PAIRS pairs of token and latent, within these bounds."""
TOLERANCE = 1e-3
"""Largest part of a token's latents, or of its reconstruction, that may differ, in float32."""
FLIPPED = 1e-4
"""Largest share of latents that may fire on one side only: those within rounding of a threshold."""
_STRAY = 8
"""One token of so many may differ by more, where a latent lies within rounding of the k-th."""


@dataclass(frozen=True)
class Check:
    """How far two computations of one SAE differ."""

    latents: float
    """Relative difference of the latents, of the token that stands at the tolerated place."""
    reconstruction: float
    """The same of the reconstruction."""
    flipped: float
    """Share of the latents that fire on one side only."""
    l0: float
    """Latents that fire on a token, on our side."""
    tokens: int

    @property
    def passed(self) -> bool:
        return max(self.latents, self.reconstruction) < TOLERANCE and self.flipped < FLIPPED

    @property
    def told(self) -> bool:
        """Whether anything was compared: an SAE without a single latent that fires tells nothing."""
        return self.l0 > 0

    def __str__(self) -> str:
        return (
            f"against the format's own equations, on {self.tokens} made-up tokens: latents differ by "
            f"{self.latents:.1e} of their size, x_hat by {self.reconstruction:.1e}, "
            f"{self.flipped:.1e} of the latents fire on one side only, L0 {self.l0:.1f}"
        )


def compare(ours: Run, reference: Run, tensors: Mapping[str, Tensor]) -> Check:
    """Both sides on the same tokens; `tensors` are ours, and only say what activations look like."""
    x = made_up(tensors)
    with torch.no_grad():
        latents, x_hat = ours(x)
        expected, x_expected = reference(x)
    flipped = (latents != 0) != (expected != 0)
    return Check(
        _difference(latents, expected),
        _difference(x_hat, x_expected),
        float(flipped.float().mean()),
        float((latents != 0).float().sum(1).mean()),
        len(x),
    )


def made_up(tensors: Mapping[str, Tensor]) -> Float[Tensor, "tokens d_in"]:
    """Tokens (n, d_in) around b_dec: decoder rows and noise, from a thirtieth of their size to thirty
    times it, so that latents lie on both sides of every threshold."""
    b_dec, W_dec = tensors["b_dec"].detach().float(), tensors["W_dec"].detach()
    made = torch.Generator().manual_seed(0)
    n = min(MAX_TOKENS, max(MIN_TOKENS, PAIRS // len(W_dec)))
    rows = torch.randint(len(W_dec), (n, 4), generator=made)
    amounts = torch.rand((n, 4, 1), generator=made)
    directions = (W_dec[rows].float() * amounts).sum(1)
    noise = torch.randn((n, len(b_dec)), generator=made) / len(b_dec) ** 0.5
    typical = float(directions.norm(dim=1).median()) or 1.0
    sizes = torch.logspace(-1.5, 1.5, n)[:, None]
    return b_dec + sizes * (directions + noise * typical)


def folded(cfg: SAEConfig, tensors: Mapping[str, Tensor]) -> Run:
    """PatchLens' own computation with these weights, as `SparseAutoencoder` documents it."""
    w = {name: tensor.float() for name, tensor in tensors.items()}
    row = architecture(cfg.architecture)
    vectors = {name: w[name] for name in row.vectors}

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        shift: Tensor | float = 0.0
        size: Tensor | float = 1.0
        z = x
        if cfg.input_norm == "layer_norm":
            size, shift = torch.std_mean(x, dim=-1, keepdim=True)
            z = (x - shift) / (size + 1e-5)
        elif cfg.input_norm == "constant_norm":
            size = x.norm(dim=-1, keepdim=True) / cfg.d_in**0.5
            z = x / size
        latents = row.latents(torch.addmm(w["b_enc"], z - w["b_dec"], w["W_enc"]), cfg, vectors)
        return latents, (latents @ w["W_dec"] + w["b_dec"]) * size + shift

    return run


def _difference(ours: Tensor, expected: Tensor) -> float:
    """Relative difference by token, at the place that _STRAY leaves."""
    size = expected.norm(dim=1).clamp_min(ours.norm(dim=1)).clamp_min(1e-12)
    parts = (ours - expected).norm(dim=1) / size
    return float(parts.sort(descending=True).values[len(parts) // _STRAY])
