"""Exact gradients of sparse latents, computed from the active entries alone.

Training with n active entries over `tokens` rows needs one dense matmul, that of the encoder. What
follows touches only the active entries: gradients are sums over bags (of a token, or of a latent),
so no `entries × d_in` and no `tokens × d_sae` array is built. Knows tensors only; nothing of losses
or configs. Runs on any device on which torch's embedding_bag does.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Entries:
    """Positions of the active latents of a batch, in order of their tokens.

    `tokens (n)` and `latents (n)`, int64, say which entry is where; `tokens` is sorted.
    """

    def __init__(self, tokens: Tensor, latents: Tensor, n_tokens: int, d_sae: int) -> None:
        self.tokens, self.latents = tokens, latents
        self.n_tokens, self.d_sae = n_tokens, d_sae
        self.token_starts = _starts(tokens, n_tokens)
        self._by_latent: tuple[Tensor, Tensor] | None = None

    @classmethod
    def from_indices(cls, indices: Tensor, d_sae: int) -> "Entries":
        """The entries of top-k indices `(tokens, k)`."""
        n_tokens, k = indices.shape
        tokens = torch.arange(n_tokens, device=indices.device).repeat_interleave(k)
        return cls(tokens, indices.reshape(-1), n_tokens, d_sae)

    def where(self, mask: Tensor) -> "Entries":
        """Those entries for which `mask (n)` is true."""
        return Entries(self.tokens[mask], self.latents[mask], self.n_tokens, self.d_sae)

    def sum_by_token(self, rows: Tensor, weights: Tensor) -> Tensor:
        """out[t] = sum of weights_e rows[latent_e] over entries e of token t; rows (d_sae, d)."""
        return _sum_bags(self.latents, rows, self.token_starts, weights)

    def sum_by_latent(self, rows: Tensor, weights: Tensor) -> Tensor:
        """out[s] = sum of weights_e rows[token_e] over entries e of latent s; rows (tokens, d)."""
        if self._by_latent is None:
            order = self.latents.int().argsort(stable=True)
            self._by_latent = order, _starts(self.latents, self.d_sae)
        order, starts = self._by_latent
        return _sum_bags(self.tokens[order], rows, starts, weights[order])

    def dot(self, by_token: Tensor, by_latent: Tensor) -> Tensor:
        """out[e] = by_token[token_e] · by_latent[latent_e], shape (n)."""
        if not self.tokens.numel():
            return by_token.new_zeros(0)
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            by_token, by_latent, self.latents, self.token_starts, self.tokens, 0, -1
        )


def preactivations_at(
    values: Tensor, entries: Entries, x: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor
) -> Tensor:
    """`values (n)` as a function of x and the weights, for gradients.

    They must be the entries of h = (x - b_dec) @ W_enc + b_enc, computed without gradient. W_enc's
    gradient has the memory order of its transpose, which is free if W_enc has it too.
    """
    return _Preactivations.apply(values, entries, x, W_enc, b_enc, b_dec)


def decode_entries(values: Tensor, entries: Entries, W_dec: Tensor) -> Tensor:
    """sum of values_e W_dec[latent_e] per token, `(tokens, d_in)`, differentiable in both."""
    return _Decode.apply(values, entries, W_dec)


class _Preactivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        entries: Entries,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,  # noqa: ARG004
        b_dec: Tensor,
    ) -> Tensor:
        ctx.entries = entries
        ctx.save_for_backward(x, W_enc, b_dec)
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, W_enc, b_dec = ctx.saved_tensors
        entries: Entries = ctx.entries
        needs_x, needs_W = ctx.needs_input_grad[2:4]
        grad_x = entries.sum_by_token(W_enc.t().contiguous(), grad) if needs_x else None
        grad_W = entries.sum_by_latent(x - b_dec, grad).t() if needs_W else None
        grad_b = grad.new_zeros(entries.d_sae).index_add_(0, entries.latents, grad)
        return None, None, grad_x, grad_W, grad_b, -(W_enc @ grad_b)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, entries: Entries, W_dec: Tensor) -> Tensor:
        ctx.entries = entries
        ctx.save_for_backward(values, W_dec)
        return entries.sum_by_token(W_dec, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, W_dec = ctx.saved_tensors
        entries: Entries = ctx.entries
        grad = grad.contiguous()
        grad_values = entries.dot(grad, W_dec) if ctx.needs_input_grad[0] else None
        grad_W = entries.sum_by_latent(grad, values) if ctx.needs_input_grad[2] else None
        return grad_values, None, grad_W


def _starts(groups: Tensor, n_groups: int) -> Tensor:
    counts = torch.bincount(groups, minlength=n_groups)
    return counts.cumsum(0) - counts


def _sum_bags(indices: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    if not indices.numel():
        return rows.new_zeros(starts.numel(), rows.shape[1])
    return F.embedding_bag(indices, rows, starts, per_sample_weights=weights, mode="sum")
