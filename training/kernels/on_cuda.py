"""The kernels for NVIDIA GPUs, in Triton: the functions of `plain`, and Adam by rows.

One program holds one token's residual, or up to SEGMENT entries of one latent, in registers, and reads
each row it needs once. Importing it needs Triton; its interpreter (TRITON_INTERPRET=1) runs it on the CPU.
"""

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from training.kernels import choosing
from training.kernels.adam_on_cuda import adam, square_norms
from training.kernels.choosing import round_rows
from training.kernels.entries import Entries
from training.kernels.plain import Gradients, Residuals, by_latent

__all__ = ["above", "adam", "add_gradients", "by_latent", "dots", "largest_of_tokens"]
__all__ += ["residuals", "round_rows", "square_norms"]

SEGMENT = 64
"""Entries of a latent that one program sums; a latent that fires more often is shared by several."""


@triton.jit
def _dots(x, rows, starts, latents, out, d, BLOCK: tl.constexpr):
    t = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    there = c < d
    mine = tl.load(x + t * d + c, mask=there, other=0.0)
    for e in range(tl.load(starts + t), tl.load(starts + t + 1)):
        row = tl.load(rows + tl.load(latents + e) * d + c, mask=there, other=0.0)
        tl.store(out + e, tl.sum(mine * row))


@triton.jit
def _residuals(
    target,
    rows,
    starts,
    latents,
    values,
    ends,
    levels,
    along,
    squares,
    n_tokens,
    d,
    N_LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    there = c < d
    first, last = tl.load(starts + t), tl.load(starts + t + 1)
    left = tl.load(target + t * d + c, mask=there, other=0.0)
    total = tl.sum(left * 0.0)
    begin = tl.load(latents) * 0
    for level in tl.static_range(N_LEVELS):
        end = tl.load(ends + level)
        for e in range(first, last):
            j = tl.load(latents + e)
            inside = (j >= begin) & (j < end)
            row = tl.load(rows + j * d + c, mask=there & inside, other=0.0)
            left -= tl.load(values + e) * row
        total += tl.sum(left * left)
        tl.store(levels + (level * n_tokens + t) * d + c, left, mask=there)
        begin = end
    tl.store(squares + t, total)
    tl.debug_barrier()  # what follows reads what was just written
    ahead = left
    for i in tl.static_range(1, N_LEVELS):
        place = levels + ((N_LEVELS - 1 - i) * n_tokens + t) * d + c
        ahead += tl.load(place, mask=there, other=0.0)
        tl.store(place, ahead, mask=there)
    tl.debug_barrier()
    for e in range(first, last):
        j = tl.load(latents + e)
        own = j * 0
        for i in tl.static_range(N_LEVELS - 1):
            own += (j >= tl.load(ends + i)).to(tl.int64)
        row = tl.load(rows + j * d + c, mask=there, other=0.0)
        missing = tl.load(levels + (own * n_tokens + t) * d + c, mask=there, other=0.0)
        tl.store(along + e, tl.sum(missing * row))


@triton.jit
def _gradients(
    owners,
    segments,
    starts,
    order,
    tokens,
    f,
    g,
    levels,
    ends,
    x,
    d_dec,
    d_enc,
    d_bias,
    n_tokens,
    d,
    d_sae,
    N_LEVELS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    s = tl.load(owners + program)
    if s < d_sae:
        c = tl.arange(0, BLOCK)
        there = c < d
        level = s * 0
        for i in tl.static_range(N_LEVELS - 1):
            level += (s >= tl.load(ends + i)).to(tl.int64)
        number = program - tl.load(segments + s)
        first = tl.load(starts + s) + number * SIZE
        last = tl.minimum(tl.load(starts + s + 1), first + SIZE)
        dec = tl.zeros((BLOCK,), tl.float32)
        enc = tl.zeros((BLOCK,), tl.float32)
        bias = 0.0
        for i in range(first, last):
            e = tl.load(order + i)
            t = tl.load(tokens + e)
            fe, ge = tl.load(f + e), tl.load(g + e)
            dec += fe * tl.load(levels + (level * n_tokens + t) * d + c, mask=there, other=0.0)
            enc += ge * tl.load(x + t * d + c, mask=there, other=0.0)
            bias += ge
        if last > first:
            tl.atomic_add(d_dec + s * d + c, dec, mask=there, sem="relaxed")
            tl.atomic_add(d_enc + s * d + c, enc, mask=there, sem="relaxed")
            tl.atomic_add(d_bias + s, bias, sem="relaxed")


def dots(x: Tensor, rows: Tensor, entries: Entries) -> Tensor:
    """See `plain.dots`."""
    out = x.new_empty(len(entries.latents))
    x, rows = x.contiguous(), rows.contiguous()
    where = entries.starts, entries.latents
    _dots[(len(x),)](x, rows, *where, out, x.shape[1], BLOCK=_block(x))
    return out


largest_of_tokens = partial(choosing.largest_of_tokens, dots)
above = partial(choosing.above, dots)


def residuals(
    target: Tensor, rows: Tensor, entries: Entries, values: Tensor, ends: tuple[int, ...]
) -> Residuals:
    """See `plain.residuals`."""
    levels = target.new_empty(len(ends), *target.shape)
    output = Residuals(levels, torch.empty_like(values), target.new_empty(len(target)))
    if not len(entries.latents):
        levels[:] = torch.arange(len(ends), 0, -1, device=target.device)[:, None, None] * target
        return output._replace(squares=target.square().sum(1) * len(ends))
    where = entries.starts, entries.latents, values.contiguous()
    given = target.contiguous(), rows.contiguous(), *where, _numbers(ends, target)
    sizes = {"N_LEVELS": len(ends), "BLOCK": _block(target)}
    _residuals[(len(target),)](*given, *output, *target.shape, **sizes)
    return output


def add_gradients(
    sums: Gradients | None,
    entries: Entries,
    f: Tensor,
    g: Tensor,
    levels: Tensor,
    ends: tuple[int, ...],
    x: Tensor,
) -> Gradients:
    """See `plain.add_gradients`. The order of a frequent latent's sum is not fixed."""
    d_sae, shape = entries.d_sae, (entries.d_sae, x.shape[1])
    sums = sums or Gradients(x.new_zeros(shape), x.new_zeros(shape), x.new_zeros(d_sae))
    order, starts = entries.by_latent(by_latent)
    n_segments = (starts.diff() + SEGMENT - 1) // SEGMENT
    ends_of = n_segments.cumsum(0)
    n_programs = d_sae + len(order) // SEGMENT  # enough for any distribution of the entries
    owners = torch.searchsorted(ends_of, torch.arange(n_programs, device=x.device), right=True)
    where = owners, ends_of - n_segments, starts, order, entries.tokens
    given = f.contiguous(), g.contiguous(), levels, _numbers(ends, x), x.contiguous()
    sizes = {"N_LEVELS": len(ends), "SIZE": SEGMENT, "BLOCK": _block(x)}
    _gradients[(n_programs,)](*where, *given, *sums, *x.shape, d_sae, **sizes)
    return sums


def _numbers(ends: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor(ends, device=like.device)


def _block(rows: Tensor) -> int:
    return triton.next_power_of_2(rows.shape[1])
