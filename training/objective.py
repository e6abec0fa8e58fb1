"""What an SAE is trained for: one loss per architecture, on normalised activations.

Knows losses and how latents are chosen in training. Knows nothing of data, optimisers, schedules or
files. The top-k family computes gradients from the active entries alone (`sae.sparse_grad`); relu
and jumprelu, whose early training is dense, use plain autograd.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sae.sparse import flat_nonzero
from sae.sparse_grad import Entries, decode_entries, preactivations_at
from training.parameters import TrainableSAE

BANDWIDTH = 0.05
"""Width of JumpReLU's straight-through window, in units of the normalised activations."""
SPARSITY_WEIGHT = 0.1
"""Weight of JumpReLU's penalty on missing the wanted L0."""


class StepOutput(NamedTuple):
    """What a step's forward gives."""

    loss: Tensor
    """The scalar to minimise."""
    squared_error: Tensor
    """Sum of ||x - x_hat||^2 over the batch, detached."""
    n_active: Tensor
    """Sum of L0 over the batch."""
    fired: Tensor
    """`(d_sae,)` bool: latents that fired on this batch."""
    smallest: Tensor
    """The smallest activation that was kept, or 0 if there was none."""


class Objective(nn.Module):
    """A TrainableSAE with its loss; calling it is one forward, ready for backward.

    `k`: active latents (for jumprelu the L0 aimed at). `groups`: matryoshka's group sizes. `l1`:
    relu's penalty. `aux`: weight of the AuxK loss, by which latents that are dead learn to
    reconstruct what the living ones left over.
    """

    def __init__(
        self,
        weights: TrainableSAE,
        architecture: str,
        *,
        k: int,
        l1: float = 0.0,
        aux: float = 0.0,
        groups: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.weights, self.architecture = weights, architecture
        self.k, self.l1, self.aux, self.groups = k, l1, aux, groups
        self._h: Tensor | None = None

    def forward(self, x: Tensor, dead: Tensor) -> StepOutput:
        """The loss on activations `x (tokens, d_in)`; `dead (d_sae,)` bool marks dead latents."""
        if self.architecture in ("relu", "jumprelu"):
            return self._dense(x, dead)
        return self._sparse(x, dead)

    def _sparse(self, x: Tensor, dead: Tensor) -> StepOutput:
        w = self.weights
        h = self._preactivations(x)
        if self.architecture == "topk":
            chosen, entries = largest_of_tokens(h, self.k)
        else:
            chosen, entries = largest_of_batch(h, self.k * len(h))
        values = preactivations_at(chosen, entries, x, w.W_enc, w.b_enc, w.b_dec).relu()
        if self.groups is None:
            x_hat = decode_entries(values, entries, w.W_dec) + w.b_dec
            loss = (x_hat - x).square().sum(1).mean()
        else:
            x_hat, loss = self._nested(x, values, entries)
        loss = loss + self._revival(x, x_hat, h, dead)
        active = chosen > 0
        fired = torch.zeros_like(dead).index_fill_(0, entries.latents[active], True)
        smallest = torch.where(active, chosen, torch.inf).amin() if len(chosen) else chosen.sum()
        error = (x_hat.detach() - x).square().sum()
        return StepOutput(loss, error, active.sum(), fired, smallest.nan_to_num(posinf=0.0))

    @torch.no_grad()
    def _preactivations(self, x: Tensor) -> Tensor:
        """h (tokens, d_sae), in a buffer that is used again: fresh memory costs a fifth more."""
        w, shape = self.weights, (len(x), self.weights.b_enc.numel())
        if self._h is None or self._h.shape != shape or self._h.dtype != x.dtype:
            self._h = x.new_empty(shape)
        return torch.addmm(w.b_enc, x - w.b_dec, w.W_enc, out=self._h)

    def _nested(self, x: Tensor, values: Tensor, entries: Entries) -> tuple[Tensor, Tensor]:
        """Matryoshka: (1/G^2) sum_i mean ||x - (b_dec + sum_{g<=i} f_g W_dec,g)||^2, G levels."""
        w, loss, start = self.weights, x.new_zeros(()), 0
        x_hat = w.b_dec.expand_as(x)
        for size in self.groups:
            inside = (entries.latents >= start) & (entries.latents < start + size)
            x_hat = x_hat + decode_entries(values[inside], entries.where(inside), w.W_dec)
            loss = loss + (x_hat - x).square().sum(1).mean()
            start += size
        return x_hat, loss / len(self.groups) ** 2

    def _revival(self, x: Tensor, x_hat: Tensor, h: Tensor, dead: Tensor) -> Tensor:
        """AuxK: aux * ||e - e_hat||^2 / ||e - mean e||^2, e_hat from d_in / 2 dead latents."""
        n = min(x.shape[1] // 2, int(dead.sum()))
        if not n or not self.aux:
            return x.new_zeros(())
        w = self.weights
        numbers = dead.nonzero().squeeze(1)
        chosen, within = largest_of_tokens(h.detach()[:, numbers], n)
        entries = Entries(within.tokens, numbers[within.latents], *h.shape)
        values = preactivations_at(chosen, entries, x, w.W_enc, w.b_enc, w.b_dec).relu()
        rest = (x - x_hat).detach()
        missed = (decode_entries(values, entries, w.W_dec) - rest).square().sum(1).mean()
        spread = (rest - rest.mean(0)).square().sum(1).mean().clamp_min(1e-8)
        return self.aux * missed / spread

    def _dense(self, x: Tensor, dead: Tensor) -> StepOutput:
        w = self.weights
        h = torch.addmm(w.b_enc, x - w.b_dec, w.W_enc)
        if self.architecture == "relu":
            latents = h.relu()
            penalty = self.l1 * latents.sum(1).mean()
        else:
            threshold = w.log_threshold.exp()
            latents = _JumpReLU.apply(h, threshold)
            l0 = _Step.apply(h, threshold).sum(1).mean()
            penalty = SPARSITY_WEIGHT * (l0 / self.k - 1).square()
        x_hat = torch.addmm(w.b_dec, latents, w.W_dec)
        loss = (x_hat - x).square().sum(1).mean() + penalty
        loss = loss + self._revival(x, x_hat, h, dead)
        active = latents.detach() > 0
        error = (x_hat.detach() - x).square().sum()
        return StepOutput(loss, error, active.sum(), active.any(0), x.new_zeros(()))


def largest_of_tokens(h: Tensor, k: int) -> tuple[Tensor, Entries]:
    """The k largest entries of each row of `h (tokens, d_sae)`: values (n) and where they are."""
    values, indices = h.topk(k, dim=1, sorted=False)
    return values.reshape(-1), Entries.from_indices(indices, h.shape[1])


def largest_of_batch(h: Tensor, n: int) -> tuple[Tensor, Entries]:
    """The n largest positive entries of `h (tokens, d_sae)`, or all positive ones if fewer.

    Candidates above a guess from a few rows are ranked instead of all of `h`; a guess that leaves
    fewer than n is lowered, so the result is exact.
    """
    rows = h[:: max(1, len(h) // 64)]
    share = min(rows.numel(), max(1, n * len(rows) // len(h)))
    guess = float(rows.reshape(-1).topk(share, sorted=False).values.min()) * 0.95
    while True:
        guess = max(guess, 0.0)
        places = flat_nonzero(h > guess)
        if len(places) >= n or guess == 0.0:
            break
        guess = guess * 0.7 if guess > 1e-6 else 0.0
    values = h.view(-1)[places]
    if len(places) > n:
        kept = values >= values.kthvalue(len(places) - n + 1).values
        places, values = places[kept], values[kept]
    tokens = places // h.shape[1]
    return values, Entries(tokens, places - tokens * h.shape[1], *h.shape)


class _Step(torch.autograd.Function):
    """1 where h > threshold; d/dthreshold = -K((h - threshold) / width) / width, K a rectangle."""

    @staticmethod
    def forward(ctx, h: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(h, threshold)
        return (h > threshold).to(h.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor]:
        h, threshold = ctx.saved_tensors
        near = (h - threshold).abs() < BANDWIDTH / 2
        return None, -(near * grad).sum(0) / BANDWIDTH


class _JumpReLU(torch.autograd.Function):
    """h where h > threshold; d/dthreshold = -threshold K((h - threshold) / width) / width."""

    @staticmethod
    def forward(ctx, h: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(h, threshold)
        return torch.where(h > threshold, h, h.new_zeros(()))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        h, threshold = ctx.saved_tensors
        near = (h - threshold).abs() < BANDWIDTH / 2
        return (h > threshold) * grad, -(near * grad).sum(0) * threshold / BANDWIDTH
