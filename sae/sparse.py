"""Sparse latents: choosing them, and decoding them without a dense `tokens × d_sae` array.

Knows tensors only; nothing of configs, files or losses. Gradients flow through the values by plain
autograd; the hand-written backward that training uses is in `training.kernels.sparse_grad`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

CHUNK_ELEMENTS = 1 << 24
"""Pre-activations held at once by a chunked encode (64 MiB in float32)."""


class SparseLatents(NamedTuple):
    """Active latents per token, strongest first; a place not used holds value 0 and index 0."""

    values: Float[Tensor, "*batch n"]
    """Activations."""
    indices: Int64[Tensor, "*batch n"]
    """Latent numbers."""

    @staticmethod
    def join(parts: "Sequence[SparseLatents]") -> "SparseLatents":
        """Parts of shape `(tokens_i, n_i)` below one another, padded to the largest n."""
        if len(parts) == 1:
            return parts[0]
        width = max(part.values.shape[1] for part in parts)
        padded = [[F.pad(field, (0, width - field.shape[1])) for field in part] for part in parts]
        return SparseLatents(*(torch.cat(fields) for fields in zip(*padded, strict=True)))


def tokens_per_chunk(d_sae: int) -> int:
    """How many tokens to encode at once, so that their pre-activations stay within a budget."""
    return max(32, CHUNK_ELEMENTS // d_sae)


def keep_above(
    h: Float[Tensor, "*batch d_sae"], threshold: Float[Tensor, " d_sae"] | float
) -> Float[Tensor, "*batch d_sae"]:
    """`h` where it is above a non-negative threshold (scalar or `(d_sae,)`), else 0."""
    if isinstance(threshold, float) and threshold == 0.0:
        return h.relu()
    return torch.where(h > threshold, h, h.new_zeros(()))


def largest_k(h: Float[Tensor, "tokens d_sae"], k: int) -> SparseLatents:
    """The k largest entries of each row of `h (tokens, d_sae)`, those not positive emptied."""
    values, indices = h.topk(k, dim=-1)
    return SparseLatents(values.relu(), indices.masked_fill(values <= 0, 0))


def largest_above(
    h: Float[Tensor, "tokens d_sae"],
    threshold: Float[Tensor, " d_sae"] | float,
    max_active: int | None = None,
) -> SparseLatents:
    """Entries of `h (tokens, d_sae)` above a non-negative threshold, strongest first per row."""
    places = flat_nonzero(h > threshold)
    rows, columns = places // h.shape[1], places % h.shape[1]
    active = h.reshape(-1)[places]
    counts = torch.bincount(rows, minlength=h.shape[0])
    width = int(counts.max()) if counts.numel() else 0
    places = torch.arange(rows.numel(), device=h.device) - (counts.cumsum(0) - counts)[rows]
    values = h.new_zeros(h.shape[0], width).index_put((rows, places), active)
    indices = columns.new_zeros(h.shape[0], width).index_put((rows, places), columns)
    n = width if max_active is None else min(width, max_active)
    values, order = values.topk(n, dim=-1)
    return SparseLatents(values, indices.gather(-1, order))


def flat_nonzero(mask: Bool[Tensor, "..."]) -> Int64[Tensor, " n"]:
    """Positions (n), int64 and ascending, of the true entries of a flattened bool mask."""
    if mask.device.type == "cpu":
        # numpy's scan of a mask with few true entries is ten times as fast as torch's
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.reshape(-1).nonzero().squeeze(1)


def decode_sparse(
    latents: SparseLatents, W_dec: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "*batch d_in"]:
    """sum_j values_j W_dec[indices_j] per token: `(*batch, d_in)`, without the bias."""
    values, indices = latents
    if values.shape != indices.shape:
        raise ValueError(
            f"values and indices differ in shape: {tuple(values.shape)} and {tuple(indices.shape)}."
        )
    batch, n = values.shape[:-1], values.shape[-1]
    if n == 0 or values.numel() == 0:
        return W_dec.new_zeros(*batch, W_dec.shape[1])
    out = F.embedding_bag(
        indices.reshape(-1, n),
        W_dec,
        per_sample_weights=values.reshape(-1, n).to(W_dec.dtype),
        mode="sum",
    )
    return out.reshape(*batch, W_dec.shape[1])
