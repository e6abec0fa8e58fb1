"""The kernels in torch's own operations, on any device on which embedding_bag runs.

Sums over bags (of a token, or of a latent), so no `entries × d_in` and no `tokens × d_sae` array is
built. This is also the reference for the other kernels. Knows tensors only.
"""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from training.kernels import choosing
from training.kernels.choosing import round_rows
from training.kernels.entries import Entries

__all__ = ["Gradients", "Residuals", "above", "add_gradients", "by_latent", "dots"]
__all__ += ["largest_of_tokens", "residuals", "round_rows"]


ADAM = 0.9, 0.999, 1e-8
"""Adam's two memories and its epsilon, as in both papers."""


class Residuals(NamedTuple):
    """What a reconstruction misses, level by level, and how each entry could help."""

    levels: Float[Tensor, "n_levels tokens d"]
    """`(n_levels, tokens, d)`: the sum of the residuals of this level and of those after it."""
    along: Float[Tensor, " entries"]
    """`(n)`: levels[level of e, token of e] · rows[latent of e]."""
    squares: Float[Tensor, " tokens"]
    """`(tokens)`: the sum over levels of the residuals' squared norms."""


class Gradients(NamedTuple):
    """Gradients of decoder rows, encoder columns (as rows) and encoder biases."""

    decoder: Float[Tensor, "d_sae d"]
    """`(d_sae, d)`."""
    encoder: Float[Tensor, "d_sae d"]
    """`(d_sae, d)`: of W_enc's transpose."""
    bias: Float[Tensor, " d_sae"]
    """`(d_sae)`."""


def by_latent(
    latents: Int64[Tensor, " entries"], d_sae: int
) -> tuple[Int64[Tensor, " entries"], Int64[Tensor, " bounds"]]:
    """The stable order of entries by latent, and where each latent's begin, `(d_sae + 1)`."""
    counts = torch.bincount(latents, minlength=d_sae)
    return latents.int().argsort(stable=True), F.pad(counts.cumsum(0), (1, 0))


def dots(
    x: Float[Tensor, "tokens d"], rows: Float[Tensor, "d_sae d"], entries: Entries
) -> Float[Tensor, " entries"]:
    """out[e] = x[token of e] · rows[latent of e], shape (n); x (tokens, d), rows (d_sae, d)."""
    return _dots(x, rows, entries, entries.tokens)


largest_of_tokens = partial(choosing.largest_of_tokens, dots)
above = partial(choosing.above, dots)


def residuals(
    target: Float[Tensor, "tokens d"],
    rows: Float[Tensor, "d_sae d"],
    entries: Entries,
    values: Float[Tensor, " entries"],
    ends: tuple[int, ...],
) -> Residuals:
    """Reconstruct `target (tokens, d)` from rows (d_sae, d) with `values (n)`, in nested levels.

    Level i uses the latents below `ends[i]`; the last end is d_sae.
    """
    left, start, remainders = target, 0, []
    for end in ends:
        inside = (entries.latents >= start) & (entries.latents < end)
        left = left - _sum_bags(
            entries.latents, rows, entries.starts[:-1], values.masked_fill(~inside, 0)
        )
        remainders.append(left)
        start = end
    levels = torch.stack(remainders)
    squares = levels.square().sum((0, 2))
    for level in range(len(ends) - 2, -1, -1):
        levels[level] += levels[level + 1]
    place = _level(entries, ends) * entries.n_tokens + entries.tokens
    return Residuals(levels, _dots(levels.flatten(0, 1), rows, entries, place), squares)


def add_gradients(
    sums: Gradients | None,
    entries: Entries,
    f: Float[Tensor, " entries"],
    g: Float[Tensor, " entries"],
    levels: Float[Tensor, "n_levels tokens d"],
    ends: tuple[int, ...],
    x: Float[Tensor, "tokens d"],
) -> Gradients:
    """Add, for every latent s, the sums over its entries e (of token t) to `sums`.

    decoder: f_e levels[level of s, t]; encoder: g_e x[t]; bias: g_e.
    """
    order, starts = entries.by_latent(by_latent)
    tokens = entries.tokens[order]
    place = _level(entries, ends)[order] * entries.n_tokens + tokens
    made = Gradients(
        _sum_bags(place, levels.flatten(0, 1), starts[:-1], f[order]),
        _sum_bags(tokens, x, starts[:-1], g[order]),
        g.new_zeros(entries.d_sae).index_add_(0, entries.latents, g),
    )
    if sums is None:
        return made
    return Gradients(*(a.add_(b) for a, b in zip(sums, made, strict=True)))


def _level(entries: Entries, ends: tuple[int, ...]) -> Tensor:
    bounds = torch.tensor(ends, device=entries.latents.device)
    return torch.bucketize(entries.latents, bounds, right=True)


def _dots(x: Tensor, rows: Tensor, entries: Entries, place: Tensor) -> Tensor:
    if not len(entries.latents):
        return x.new_zeros(0)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x, rows, entries.latents, entries.starts[:-1], place, 0, -1
    )


def _sum_bags(indices: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    if not indices.numel():
        return rows.new_zeros(starts.numel(), rows.shape[1])
    return F.embedding_bag(indices, rows, starts, per_sample_weights=weights, mode="sum")
