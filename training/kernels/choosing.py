"""Finding the largest pre-activations in torch's own operations, on any device.

The bound that makes this exact is explained in `training.kernels.screening`, which does the same for the
CPU. Which kernel multiplies the rows is the caller's to say. Knows tensors only.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import BFloat16, Float, Float64, Int64
from torch import Tensor

from training.kernels.entries import Entries

Dots = Callable[
    [Float[Tensor, "tokens d"], Float[Tensor, "d_sae d"], Entries], Float[Tensor, " entries"]
]
"""The kernel `dots` of the module that chooses."""
GROUP = 64
"""Latents of which a GPU first takes the maximum only."""
WIDER = 2, 8
"""How many times k rounded candidates a token has, at first and if those leave a doubt."""


@contextlib.contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """A GPU's products without TF32, and those of bfloat16 added up in float32: the bound knows no
    other errors."""
    if device_type != "cuda":
        yield
        return
    flags = torch.backends.cuda.matmul
    wanted = torch.get_float32_matmul_precision(), flags.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    flags.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(wanted[0])
        flags.allow_bf16_reduced_precision_reduction = wanted[1]


def flat_largest(
    h: Float[Tensor, "tokens d_sae"], k: int
) -> tuple[Float[Tensor, "tokens k"], Int64[Tensor, "tokens k"]]:
    """The k largest of each row of `h (tokens, d_sae)`: values and latents, `(tokens, k)`."""
    if h.is_cuda and h.shape[1] % GROUP == 0 and h.shape[1] >= 4 * k * GROUP:
        return largest_by_groups(h, k)
    values, indices = h.topk(k, dim=1, sorted=False)
    return values, indices


def largest_by_groups(
    h: Float[Tensor, "tokens d_sae"], k: int
) -> tuple[Float[Tensor, "tokens k"], Int64[Tensor, "tokens k"]]:
    """`h.topk(k)` by rows in two stages: the groups of latents with the largest maxima, then those.

    Exact, as the k groups hold k entries at least as large as any of another group. `h` is read once,
    where a GPU's topk reads it several times.
    """
    grouped = h.unflatten(1, (-1, GROUP))
    groups = grouped.amax(2).topk(k, dim=1, sorted=False).indices
    inside = grouped.gather(1, groups[:, :, None].expand(-1, -1, GROUP)).flatten(1)
    values, places = inside.topk(k, dim=1, sorted=False)
    return values, groups.gather(1, places // GROUP) * GROUP + places % GROUP


def round_rows(
    rows: Float[Tensor, "n d"],
) -> tuple[BFloat16[Tensor, "n d"], Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """`rows (n, d)` in bfloat16, the norms of these, and those of what rounding took away."""
    rounded = rows.bfloat16()
    back = rounded.to(rows.dtype)
    return rounded, back.norm(dim=1).double(), (rows - back).norm(dim=1).double()


def largest_of_tokens(
    dots: Dots,
    h: Float[Tensor, "tokens d_sae"],
    k: int,
    margins: Float[Tensor, " tokens"] | None,
    relative: float,
    x: Float[Tensor, "tokens d"],
    rows: Float[Tensor, "d_sae d"],
    bias: Float[Tensor, " d_sae"],
) -> tuple[Float[Tensor, "tokens k"], Int64[Tensor, "tokens k"]]:
    """The k largest positive entries of x rows^T + bias of each token, found by rounded ones.

    `h (tokens, d_sae)` bfloat16 is off by at most margins[t] + relative |h|; without margins the k
    largest rounded ones are taken. Returns values and latents `(tokens, k)`, empty places 0.
    """
    if margins is None:
        values, latents, _ = _best(dots, h, k, k, x, rows, bias)
    else:
        values, latents, least = _best(dots, h, min(WIDER[0] * k, h.shape[1]), k, x, rows, bias)
        doubtful = _doubtful(values, least, margins, relative)
        if len(doubtful):
            given = h[doubtful], k, margins[doubtful], relative, x[doubtful], rows, bias
            values[doubtful], latents[doubtful] = _wider(dots, *given)
    return values.relu(), latents.masked_fill(values <= 0, 0)


def _wider(
    dots: Dots,
    h: Tensor,
    k: int,
    margins: Tensor,
    relative: float,
    x: Tensor,
    rows: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Tokens whose first candidates were too few: more of them, and at last all latents."""
    values, latents, least = _best(dots, h, min(WIDER[1] * k, h.shape[1]), k, x, rows, bias)
    doubtful = _doubtful(values, least, margins, relative)
    if len(doubtful):
        with full_precision(h.device.type):
            full = torch.addmm(bias, x[doubtful], rows.t())
        values[doubtful], latents[doubtful] = flat_largest(full, k)
    return values, latents


def _best(
    dots: Dots, h: Tensor, n: int, k: int, x: Tensor, rows: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The k exactly largest of each token's n largest rounded ones; and the least rounded one that
    was looked at, `(tokens)`, or None if all were."""
    rounded, latents = flat_largest(h, n)
    exact = _exact(dots, x, rows, bias, Entries.from_indices(latents, h.shape[1]))
    values, places = exact.view(latents.shape).topk(k, dim=1, sorted=False)
    least = rounded.amin(1) if n < h.shape[1] else None
    return values, latents.gather(1, places), least


def _doubtful(values: Tensor, least: Tensor | None, margins: Tensor, relative: float) -> Tensor:
    """Tokens of which a latent that was not looked at may belong to the k largest."""
    if least is None:
        return margins.new_zeros(0, dtype=torch.int64)
    reach = values.amin(1).clamp_min(0).double() - margins
    reach = reach / torch.where(reach > 0, 1 + relative, 1 - relative)
    return (least >= reach).nonzero().squeeze(1)


def above(
    dots: Dots,
    h: Float[Tensor, "tokens d_sae"],
    bars: Float[Tensor, " tokens"],
    k: int,  # noqa: ARG001
    x: Float[Tensor, "tokens d"],
    rows: Float[Tensor, "d_sae d"],
    bias: Float[Tensor, " d_sae"],
) -> tuple[Float[Tensor, " entries"], Entries]:
    """Entries of `h (tokens, d_sae)` bfloat16 at `bars (tokens)` or above, about k a token.

    Returns x rows^T + bias there, in full precision.
    """
    places = (h >= bars[:, None]).view(-1).nonzero().squeeze(1)
    tokens = places // h.shape[1]
    entries = Entries.from_tokens(tokens, places - tokens * h.shape[1], *h.shape)
    return _exact(dots, x, rows, bias, entries), entries


def _exact(dots: Dots, x: Tensor, rows: Tensor, bias: Tensor, entries: Entries) -> Tensor:
    return dots(x, rows, entries) + bias[entries.latents]
