"""Which latents are active on a training batch: the k largest of each token, or k a token on average.

Knows pre-activations and how to find the largest of them, also over several processes. Knows nothing
of losses or weights' updates.

Where the machine multiplies bfloat16 faster than float32, the dense matmul is done in bfloat16, and
only latents that its rounding error (a proven bound, see `training.kernels.screening`) leaves in doubt are
computed in full precision: the same latents and values as from a dense matmul in full precision, up to
the order of its sums. `dtype` bfloat16 leaves out the doubt: latents are then chosen by rounded values.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sae.sparse import flat_nonzero
from training import kernels
from training.kernels.choosing import flat_largest, full_precision
from training.kernels.entries import Entries
from training.loop.distributed import Alone

OUTPUT_ROUNDING = 2.1 * 2.0**-8
"""Largest error of a bfloat16 matmul's result and bias, rounded one after the other, relative."""
SAMPLE = 64
"""Tokens from which the first guess at a batch's cutoff comes."""


class Encoder(NamedTuple):
    """h = x @ rows.T + bias of a batch, not yet computed."""

    x: Float[Tensor, "tokens d_in"]
    """Activations - b_dec, `(tokens, d_in)`."""
    rows: Float[Tensor, "d_sae d_in"]
    """W_enc's transpose, `(d_sae, d_in)`."""
    bias: Float[Tensor, " d_sae"]


class Rounded(NamedTuple):
    """Pre-activations in bfloat16, each off by at most margins[token] + OUTPUT_ROUNDING |h|.

    No margins: the rounded values are to be trusted.
    """

    h: Float[Tensor, "tokens d_sae"]
    margins: Float[Tensor, " tokens"] | None


class Selection:
    """Chooses active latents, `dtype` being what the dense matmul decides in.

    `screen`: whether to find the largest in bfloat16 first (None: where that is faster). `ranks`:
    the processes that share a batch.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        *,
        screen: bool | None = None,
        ranks: Alone | None = None,
    ) -> None:
        self.dtype, self.screen, self.ranks = dtype, screen, ranks or Alone()
        self._buffer: Tensor | None = None

    @torch.no_grad()
    def of_tokens(self, given: Encoder, k: int) -> tuple[Float[Tensor, " entries"], Entries]:
        """The k largest of each token: pre-activations (n) and where they are."""
        if not self._screens(given):
            return largest_of_tokens(self._full(given), k)
        h, margins = self._rounded(given)
        find = kernels.chosen(given.x).largest_of_tokens
        values, latents = find(h, k, margins, OUTPUT_ROUNDING, *given)
        return values.view(-1), Entries.from_indices(latents, len(given.rows))

    @torch.no_grad()
    def of_batch(self, given: Encoder, k: int) -> tuple[Float[Tensor, " entries"], Entries]:
        """The k * tokens largest positive ones of the batch of all processes."""
        n = k * len(given.x)
        if not self._screens(given):
            return largest_of_batch(self._full(given), n, self.ranks)
        h, margins = self._rounded(given)
        above = kernels.chosen(given.x).above

        def candidates(level: float) -> tuple[Tensor, Entries]:
            if margins is None:
                return above(h, torch.full((len(h),), level, device=h.device), k, *given)
            bars = level - margins
            bars = bars / torch.where(bars > 0, 1 + OUTPUT_ROUNDING, 1 - OUTPUT_ROUNDING)
            return above(h, bars, k, *given)

        return _largest(candidates, _guess(h, n), n, self.ranks)

    def _screens(self, given: Encoder) -> bool:
        if self.dtype == torch.bfloat16:
            return True
        if self.screen is not None:
            return self.screen
        return kernels.has_fast_bfloat16(given.x.device.type)

    def _full(self, given: Encoder) -> Tensor:
        out = self._memory(given, given.x.dtype)
        return torch.addmm(given.bias, given.x, given.rows.t(), out=out)

    def _rounded(self, given: Encoder) -> Rounded:
        """The matmul in bfloat16, with the bound of its error if the choice is to be exact."""
        x, rows, bias = given
        out, low = self._memory(given, torch.bfloat16), bias.bfloat16()
        if self.dtype == torch.bfloat16:
            torch.addmm(low, x.bfloat16(), rows.bfloat16().t(), out=out)
            return Rounded(out, None)
        round_rows = kernels.chosen(x).round_rows
        x_low, x_norms, x_errors = round_rows(x)
        rows_low, row_norms, row_errors = round_rows(rows)
        summing = (x.shape[1] + 2) * 2.0**-23
        margins = x_errors * (row_norms + row_errors).max()
        margins += x_norms * (row_errors.max() + summing * row_norms.max())
        margins += ((bias - low).abs() + 2.0**-7 * bias.abs()).max()
        with full_precision(x.device.type):
            torch.addmm(low, x_low, rows_low.t(), out=out)
        return Rounded(out, margins * 1.0001)

    def _memory(self, given: Encoder, dtype: torch.dtype) -> Tensor:
        """A buffer for h that is used again: fresh memory costs a fifth more."""
        shape = len(given.x), len(given.rows)
        if self._buffer is None or self._buffer.shape != shape or self._buffer.dtype != dtype:
            self._buffer = given.x.new_empty(shape, dtype=dtype)
        return self._buffer


def largest_of_tokens(
    h: Float[Tensor, "tokens d_sae"], k: int
) -> tuple[Float[Tensor, " entries"], Entries]:
    """The k largest entries of each row of `h (tokens, d_sae)`: values (n) and where they are."""
    values, latents = flat_largest(h, k)
    return values.reshape(-1), Entries.from_indices(latents, h.shape[1])


def largest_of_batch(
    h: Float[Tensor, "tokens d_sae"], n: int, ranks: Alone | None = None
) -> tuple[Float[Tensor, " entries"], Entries]:
    """The n largest positive entries of `h (tokens, d_sae)`, or all positive ones if fewer.

    Entries as large as the n-th are all kept. With several `ranks`, the n * ranks.n largest of all.
    """

    def candidates(level: float) -> tuple[Tensor, Entries]:
        places = flat_nonzero(h > 0 if level <= 0 else h >= level)
        tokens = places // h.shape[1]
        latents = places - tokens * h.shape[1]
        return h.view(-1)[places], Entries.from_tokens(tokens, latents, *h.shape)

    return _largest(candidates, _guess(h, n), n, ranks or Alone())


def _guess(h: Tensor, n: int) -> Tensor:
    """About the n-th largest entry of `h`, from some of its rows, in float32."""
    rows = h[:: max(1, len(h) // SAMPLE)]
    share = min(rows.numel(), max(1, n * len(rows) // len(h)))
    return rows.reshape(-1).topk(share, sorted=False).values.min().float()


def _largest(
    candidates: Callable[[float], tuple[Tensor, Entries]], guess: Tensor, n: int, ranks: Alone
) -> tuple[Tensor, Entries]:
    """The n * ranks.n largest positive of all processes' entries.

    `candidates(level)` must give all entries of at least `level`, and may give smaller ones. Only
    those above a guess are ranked; a guess that leaves too few is lowered, so the result is exact.
    """
    level, n = max(0.0, float(ranks.mean(guess)) * 0.99), n * ranks.n
    for lower in (0.93, 0.8, 0.5, 0.0):
        values, entries = candidates(level)
        if level == 0.0 or int(ranks.total((values >= level).sum())) >= n:
            break
        level *= lower
    kept = values > 0
    bar = ranks.cutoff(values, n)
    if bar is None and len(values) > n:
        bar = values.kthvalue(len(values) - n + 1).values
    if bar is not None:
        kept &= values >= bar
    if not bool(kept.all()):
        values, entries = values[kept], entries.where(kept)
    return values, entries
