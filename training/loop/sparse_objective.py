"""The losses of the top-k family: topk, batch_topk and matryoshka.

Knows the three losses; latents are chosen by `training.loop.selection`, gradients come from the active
entries alone (`training.kernels.sparse_grad`). Knows nothing of data, optimisers, schedules or files.
"""

import torch
from torch import Tensor, nn

from training.kernels.entries import Entries
from training.kernels.sparse_grad import (
    Crowd,
    Reconstruction,
    reconstruct,
    reconstruct_crowded,
    weighted_loss,
)
from training.loop.distributed import Alone
from training.loop.parameters import TrainableSAE
from training.loop.selection import Encoder, Selection, largest_of_batch, largest_of_tokens
from training.loop.step_output import StepOutput

__all__ = ["SparseObjective", "largest_of_batch", "largest_of_tokens"]

COMPARED_EVERY = 32
"""Batches from one comparison of latents chosen in bfloat16 with the exact ones to the next."""

CROWDED = 10
"""Where each token uses more than one in so many of the dead latents, a dense matmul over these is the
faster way to the same numbers."""


class SparseObjective(nn.Module):
    """A TrainableSAE with its loss; calling it is one forward, ready for backward.

    `k`: active latents per token. `groups`: matryoshka's group sizes. `aux`: weight of the AuxK
    loss, by which latents that are dead learn to reconstruct what the living ones left over.
    `ranks`: the processes that share a batch. `select_dtype` bfloat16 chooses latents by rounded
    pre-activations; `differing` then is the share of entries that were chosen otherwise than exactly
    when it was last looked at (every COMPARED_EVERY batches; None before).
    """

    def __init__(
        self,
        weights: TrainableSAE,
        architecture: str,
        *,
        k: int,
        aux: float = 0.0,
        groups: tuple[int, ...] | None = None,
        ranks: Alone | None = None,
        select_dtype: torch.dtype = torch.float32,
        screen: bool | None = None,
    ) -> None:
        super().__init__()
        self.weights, self.architecture = weights, architecture
        self.k, self.aux, self.ranks = k, aux, ranks or Alone()
        sizes = groups or (weights.b_enc.numel(),)
        self.ends = tuple(sum(sizes[: i + 1]) for i in range(len(sizes)))
        self._selection = Selection(select_dtype, screen=screen, ranks=self.ranks)
        self.differing: float | None = None
        self._batches = 0

    def forward(self, x: Tensor, dead: Tensor, cls: Tensor | None = None) -> StepOutput:
        """The loss on activations `x (tokens, d_in)`; `dead (d_sae,)` bool marks dead latents."""
        del cls
        with torch.autocast(x.device.type, enabled=False):
            return self._forward(x, dead)

    def _forward(self, x: Tensor, dead: Tensor) -> StepOutput:
        w = self.weights
        given = Encoder((x - w.b_dec).detach(), w.W_enc.detach().t(), w.b_enc.detach())
        h, entries = self._choose(given)
        main = reconstruct(given.x, w.W_dec, entries, h, self.ends)
        weight, others = 1 / (len(x) * len(self.ends) ** 2), self._revival(given, main, dead)
        loss = weighted_loss(main, weight, others, given.x, w.W_enc, w.b_enc, w.W_dec, w.b_dec)
        active = h > 0
        fired = torch.zeros_like(dead).index_fill_(0, entries.latents[active], True)
        smallest = torch.where(active, h, torch.inf).amin() if len(h) else h.sum()
        error = main.residual.square().sum()
        return StepOutput(loss, error, active.sum(), fired, smallest.nan_to_num(posinf=0.0))

    def _choose(self, given: Encoder) -> tuple[Tensor, Entries]:
        choose = "of_tokens" if self.architecture == "topk" else "of_batch"
        h, entries = getattr(self._selection, choose)(given, self.k)
        if self._selection.dtype == torch.bfloat16:
            if self._batches % COMPARED_EVERY == 0:
                exactly = Selection(ranks=self.ranks)
                _, expected = getattr(exactly, choose)(given, self.k)
                self.differing = share_not_in(entries, expected)
            self._batches += 1
        return h, entries

    @torch.no_grad()
    def _revival(
        self, given: Encoder, main: Reconstruction, dead: Tensor
    ) -> list[tuple[Reconstruction | Crowd, Tensor]]:
        """AuxK: aux * ||e - e_hat||^2 / ||e - mean e||^2, e_hat from d_in / 2 dead latents."""
        left, W_dec = main.residual, self.weights.W_dec
        n = min(left.shape[1] // 2, int(dead.sum())) if self.aux else 0
        if not n:
            return []
        numbers = dead.nonzero().squeeze(1)
        hidden = torch.addmm(given.bias[numbers], given.x, given.rows[numbers].t())
        if len(numbers) > CROWDED * n:
            h, within = largest_of_tokens(hidden, n)
            entries = Entries(numbers[within.latents], within.starts, len(dead))
            revived: Reconstruction | Crowd = reconstruct(left, W_dec, entries, h)
        else:
            if n < len(numbers):
                bar = hidden.topk(n, dim=1, sorted=False).values.amin(1, keepdim=True)
                hidden.masked_fill_(hidden < bar, -torch.inf)
            revived = reconstruct_crowded(left, W_dec, numbers, hidden)
        centre = self.ranks.mean(left.mean(0))
        spread = self.ranks.mean((left - centre).square().sum(1).mean()).clamp_min(1e-8)
        return [(revived, self.aux / (spread * len(left)))]


def share_not_in(found: Entries, expected: Entries) -> float:
    """The share of `expected` entries that are not among `found`."""
    places = [e.tokens * e.d_sae + e.latents for e in (found, expected)]
    return float((~torch.isin(places[1], places[0])).float().mean()) if len(places[1]) else 0.0
