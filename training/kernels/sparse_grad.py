"""Losses of sparse reconstructions, with exact gradients from the active entries alone.

Training with n active entries over `tokens` rows needs one dense matmul, that of the encoder. What
follows touches only the active entries: a forward reads each entry's decoder row once, a backward
reads its token's activations and residual once, and no `entries × d_in` nor `tokens × d_sae` array is
built. Knows tensors only; nothing of how latents are chosen, of losses or of configs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from training import kernels
from training.kernels.entries import Entries
from training.kernels.plain import Gradients, Residuals

__all__ = ["Crowd", "Entries", "SparseReconstruction", "reconstruct", "reconstruct_crowded"]
__all__ += ["weighted_loss"]


class SparseReconstruction(NamedTuple):
    """A target and what is left of it when its entries are decoded; no gradient flows through it."""

    entries: Entries
    h: Float[Tensor, " entries"]
    """Pre-activations of the entries, `(n)`; those not positive are inactive."""
    ends: tuple[int, ...]
    """Level i uses the latents below `ends[i]`; the last end is d_sae."""
    residuals: Residuals

    @property
    def residual(self) -> Float[Tensor, "tokens d_in"]:
        """What the last level left over, `(tokens, d_in)`."""
        return self.residuals.levels[-1]

    @property
    def error(self) -> Float[Tensor, ""]:
        """The sum of squared residuals of all tokens and levels."""
        return self.residuals.squares.sum()

    def add_gradients(
        self, sums: Gradients | None, slope: Float[Tensor, ""], x: Float[Tensor, "tokens d_in"]
    ) -> Gradients:
        """Add the gradients of error * slope / -2 by the weights to `sums`."""
        f, g = slope * self.h.relu(), slope * self.residuals.along.masked_fill(self.h <= 0, 0)
        add = kernels.chosen(x).add_gradients
        return add(sums, self.entries, f, g, self.residuals.levels, self.ends, x)


class Crowd(NamedTuple):
    """A reconstruction from a few latents of which each token uses a good part: small dense matmuls."""

    numbers: Int64[Tensor, " m"]
    """The latents, `(m)` int64."""
    latents: Float[Tensor, "tokens m"]
    """Their activations, `(tokens, m)`."""
    rows: Float[Tensor, "m d_in"]
    """Their decoder rows, `(m, d_in)`."""
    residual: Float[Tensor, "tokens d_in"]

    @property
    def error(self) -> Float[Tensor, ""]:
        """The sum of squared residuals."""
        return self.residual.square().sum()

    def add_gradients(
        self, sums: Gradients, slope: Float[Tensor, ""], x: Float[Tensor, "tokens d_in"]
    ) -> Gradients:
        """Add the gradients of error * slope / -2 by the weights to `sums`."""
        left = slope * self.residual
        g = (left @ self.rows.t()).masked_fill_(self.latents <= 0, 0)
        sums.decoder.index_add_(0, self.numbers, self.latents.t() @ left)
        sums.encoder.index_add_(0, self.numbers, g.t() @ x)
        sums.bias.index_add_(0, self.numbers, g.sum(0))
        return sums


@torch.no_grad()
def reconstruct(
    target: Float[Tensor, "tokens d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    entries: Entries,
    h: Float[Tensor, " entries"],
    ends: tuple[int, ...] | None = None,
) -> SparseReconstruction:
    """Decode relu(h) with `W_dec (d_sae, d_in)`, level by level, and compare with the target."""
    ends = ends or (entries.d_sae,)
    residuals = kernels.chosen(target).residuals(target, W_dec, entries, h.relu(), ends)
    return SparseReconstruction(entries, h, ends, residuals)


@torch.no_grad()
def reconstruct_crowded(
    target: Float[Tensor, "tokens d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    numbers: Int64[Tensor, " m"],
    h: Float[Tensor, "tokens m"],
) -> Crowd:
    """The same with the latents `numbers (m)` and their pre-activations `h (tokens, m)`, -inf where
    one is not to be used."""
    latents, rows = h.relu(), W_dec[numbers]
    return Crowd(numbers, latents, rows, torch.addmm(target, latents, rows, alpha=-1))


def weighted_loss(
    main: SparseReconstruction,
    weight: float,
    others: Sequence[tuple[SparseReconstruction | Crowd, Float[Tensor, ""]]],
    x: Float[Tensor, "tokens d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
) -> Float[Tensor, ""]:
    """weight * error of `main`, whose target is x, + those of `others`, targets of their own; a scalar.

    Differentiable in the weights, where h = x @ W_enc + b_enc with `x (tokens, d_in)` = activations
    - b_dec; x itself gets no gradient. W_enc's gradient has the memory order of its transpose.
    """
    parts = [(main, weight), *others]
    return _WeightedLoss.apply(parts, x.detach(), W_enc, b_enc, W_dec, b_dec)


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: list, x: Tensor, W_enc: Tensor, *_: Tensor) -> Tensor:
        ctx.parts = parts
        ctx.save_for_backward(x, W_enc)
        return torch.stack([weight * part.error for part, weight in parts]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, W_enc = ctx.saved_tensors
        sums: Any = None
        for part, weight in ctx.parts:
            sums = part.add_gradients(sums, -2 * weight * grad, x)
        main, weight = ctx.parts[0]
        d_b_dec = -2 * weight * grad * main.residuals.levels[0].sum(0) - W_enc @ sums.bias
        return None, None, sums.encoder.t(), sums.bias, sums.decoder, d_b_dec
