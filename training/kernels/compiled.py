"""The kernels for the CPU, compiled by numba: the functions of `plain`, and some that only it has.

Hands tensors to the loops of `training.kernels.loops` and `training.kernels.screening` as arrays, without
copying. Importing it needs numba; the loops compile at their first call and are kept on disk.
"""

import numpy as np
import torch
from torch import Tensor

from training.kernels import loops, screening
from training.kernels.entries import Entries
from training.kernels.plain import ADAM, Gradients, Residuals
from training.kernels.threads import share


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Memory for a result. numpy asks for huge pages; torch's fresh pages cost more than filling them."""
    return torch.from_numpy(np.empty(shape, like.numpy().dtype))


def by_latent(latents: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    """See `plain.by_latent`."""
    order, starts = torch.empty_like(latents), latents.new_zeros(d_sae + 1)
    loops.by_latent(_array(latents), starts.numpy(), order.numpy())
    return order, starts


def dots(x: Tensor, rows: Tensor, entries: Entries) -> Tensor:
    """See `plain.dots`."""
    out = x.new_empty(len(entries.latents))
    where = _array(entries.starts), _array(entries.latents)
    share(loops.dots, entries.n_tokens, _array(x), _array(rows), *where, out.numpy())
    return out


def residuals(
    target: Tensor, rows: Tensor, entries: Entries, values: Tensor, ends: tuple[int, ...]
) -> Residuals:
    """See `plain.residuals`."""
    levels = _empty((len(ends), *target.shape), target)
    levels[0] = target
    along, squares = torch.empty_like(values), target.new_empty(len(target))
    where = _array(entries.starts), _array(entries.latents)
    given = _array(rows), *where, _array(values), np.array(ends)
    share(loops.residuals, len(target), *given, levels.numpy(), along.numpy(), squares.numpy())
    return Residuals(levels, along, squares)


def add_gradients(
    sums: Gradients | None,
    entries: Entries,
    f: Tensor,
    g: Tensor,
    levels: Tensor,
    ends: tuple[int, ...],
    x: Tensor,
) -> Gradients:
    """See `plain.add_gradients`."""
    order, starts = entries.by_latent(by_latent)
    d_sae, anew = entries.d_sae, sums is None
    if sums is None:
        shape = d_sae, x.shape[1]
        sums = Gradients(_empty(shape, x), _empty(shape, x), x.new_empty(d_sae))
    where = _array(starts), _array(order), _array(entries.tokens)
    given = _array(f), _array(g), _array(levels), np.array(ends), _array(x), anew
    share(loops.gradients, d_sae, *where, *given, *(field.numpy() for field in sums))
    return sums


def round_rows(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See `choosing.round_rows`."""
    rounded = torch.empty(rows.shape, dtype=torch.bfloat16)
    norms, errors = torch.empty(2, len(rows), dtype=torch.float64)
    given = _array(rows), rounded.view(torch.uint16).numpy(), norms.numpy(), errors.numpy()
    share(screening.round_rows, len(rows), *given)
    return rounded, norms, errors


def largest_of_tokens(
    h: Tensor,
    k: int,
    margins: Tensor | None,
    relative: float,
    x: Tensor,
    rows: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """See `choosing.largest_of_tokens`."""
    values, latents = x.new_empty(len(x), k), torch.empty(len(x), k, dtype=torch.int64)
    margins = torch.zeros(len(x), dtype=torch.float64) if margins is None else margins
    given = _array(h.view(torch.int16)), k, _array(margins), relative
    sources = _array(x), _array(rows), _array(bias), _n_groups(k, h.shape[1])
    job = screening.largest_of_tokens
    share(job, len(x), *given, *sources, values.numpy(), latents.numpy())
    return values, latents


def above(
    h: Tensor, bars: Tensor, k: int, x: Tensor, rows: Tensor, bias: Tensor
) -> tuple[Tensor, Entries]:
    """See `choosing.above`."""
    rounded, limits, n_groups = _array(h.view(torch.int16)), _array(bars), _n_groups(k, h.shape[1])
    starts = torch.zeros(len(x) + 1, dtype=torch.int64)
    share(screening.count_above, len(x), rounded, limits, n_groups, starts[1:].numpy())
    starts = starts.cumsum(0)
    n = int(starts[-1])
    values, latents = x.new_empty(n), torch.empty(n, dtype=torch.int64)
    given = rounded, limits, n_groups, starts.numpy(), _array(x), _array(rows), _array(bias)
    share(screening.values_above, len(x), *given, values.numpy(), latents.numpy())
    return values, Entries(latents, starts, h.shape[1])


def square_norms(p: Tensor, g: Tensor, *, remove: bool) -> tuple[Tensor, Tensor]:
    """Per row of `p (n, d)`: the gradient's part along it (0 unless `remove`), and the squared norm
    of the rest."""
    along, squares = p.new_empty(2, len(p))
    given = _array(p), _array(g), remove, along.numpy(), squares.numpy()
    share(loops.square_norms, len(p), *given)
    return along, squares


def adam(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    along: Tensor,
    *,
    scale: Tensor,
    lr: float,
    step: int,
    unit: bool,
) -> None:
    """Adam's step number `step` (from 1) in place on rows `p (n, d)`, with the gradient
    scale * (g - along p); `unit` gives every row norm 1 afterwards."""
    beta1, beta2, eps = ADAM
    number = _array(p).dtype.type
    rate, root = lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
    numbers = (number(n) for n in (float(scale), rate, root, beta1, beta2, eps))
    arrays = p.detach().numpy(), _array(g), m.numpy(), v.numpy(), along.numpy()
    share(loops.adam, len(p), *arrays, *numbers, unit)


def _n_groups(k: int, d_sae: int) -> int:
    """Groups of latents that are looked at together: many more than k, in whole vectors."""
    wanted = -(-16 * k // screening.LANES) * screening.LANES
    return max(1, min(wanted, d_sae))
