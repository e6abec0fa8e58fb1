"""What an SAE is trained for: one objective for each that the table of architectures names.

    l1      relu                             mean error + l1 * mean L1; PatchSAE's normalisation, ghosts
    l0      jumprelu                         mean ||x - x_hat||^2 + aux * AuxK; thresholds are held at L0 = k
    top_k   topk, batch_topk, matryoshka     mean ||x - x_hat||^2 + aux * AuxK, of the entries that were
                                             chosen: k of each token, or k * tokens of the batch; over
                                             nested groups of latents, if there are any

Knows losses, on scaled activations. Latents of `top_k` are chosen by `training.loop.selection`, and its
gradients come from the active entries alone (`training.kernels.sparse_grad`). Knows nothing of data,
optimisers, schedules or files. An objective of your own joins by `register_objective` (docs/extending.md).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from sae.architectures import Architecture, architecture
from training.kernels.entries import Entries
from training.kernels.sparse_grad import (
    Crowd,
    SparseReconstruction,
    reconstruct,
    reconstruct_crowded,
    weighted_loss,
)
from training.loop.distributed import Alone
from training.loop.selection import Encoder, Selection, largest_of_tokens
from training.loop.weights import TrainableSAE

BANDWIDTH = 0.05
"""Width of JumpReLU's straight-through window, in units of the normalised activations."""
THRESHOLD_GAIN = 0.2
"""By how much of ln(L0 / k) JumpReLU's log thresholds move after a step."""
COMPARED_EVERY = 32
"""Batches from one comparison of latents chosen in bfloat16 with the exact ones to the next."""
CROWDED = 10
"""Where each token uses more than one in so many of the dead latents, a dense matmul over these is the
faster way to the same numbers."""


@dataclass(frozen=True)
class Terms:
    """What an objective may be told; each reads what its loss has."""

    k: int
    """Active latents per token: chosen (top_k), or aimed at (l0)."""
    l1: float = 0.0
    """Weight of the L1 penalty."""
    aux: float = 0.0
    """Weight of AuxK, by which dead latents learn to reconstruct what the living ones left over."""
    groups: tuple[int, ...] | None = None
    """Sizes of nested groups of latents."""
    by_norm: bool = False
    """PatchSAE's error: mean over tokens and dimensions of (x - x_hat)^2 / ||x||."""
    mse_cls: float = 1.0
    """Weight of the CLS tokens' errors."""
    ghost: bool = False
    """Ghost gradients for dead latents."""
    select_dtype: torch.dtype = torch.float32
    """bfloat16 chooses latents by rounded pre-activations."""
    screen: bool | None = None
    """Whether to find the largest in bfloat16 first (None: where that is faster)."""


class StepOutput(NamedTuple):
    """What a step's forward gives, whatever the objective."""

    loss: Float[Tensor, ""]
    """The scalar to minimise."""
    squared_error: Float[Tensor, ""]
    """Sum of ||x - x_hat||^2 over the batch, detached."""
    n_active: Num[Tensor, ""]
    """Sum of L0 over the batch."""
    fired: Bool[Tensor, " d_sae"]
    """`(d_sae,)` bool: latents that fired on this batch."""
    smallest: Float[Tensor, ""]
    """The smallest activation that was kept, or 0 if there was none."""


class Objective(nn.Module):
    """A TrainableSAE with its loss; calling it is one forward, ready for backward.

    `ranks`: the processes that share a batch. `differing`: with `select_dtype` bfloat16, the share of
    entries that were chosen otherwise than exactly when it was last looked at; None otherwise.
    """

    differing: float | None = None

    def __init__(
        self, weights: TrainableSAE, row: Architecture, terms: Terms, ranks: Alone | None = None
    ) -> None:
        super().__init__()
        self.weights, self.row, self.terms, self.ranks = weights, row, terms, ranks or Alone()

    def forward(
        self,
        x: Float[Tensor, "tokens d_in"],
        dead: Bool[Tensor, " d_sae"],
        cls: Bool[Tensor, " tokens"] | None = None,
    ) -> StepOutput:
        """The loss on activations `x (tokens, d_in)`.

        `dead (d_sae,)` bool marks dead latents, `cls (tokens,)` bool CLS tokens (for mse_cls).
        """
        raise NotImplementedError

    def after_update(self, out: StepOutput, n_tokens: int) -> None:
        """What is set by hand, not by gradients, after a step on `n_tokens` tokens of this process."""


def objective_for(
    weights: TrainableSAE, name: str, *, ranks: Alone | None = None, **terms: Any
) -> Objective:
    """The objective of architecture `name` on `weights`; `terms` are those of Terms.

    ValueError for an architecture whose objective is not among OBJECTIVES.
    """
    row = architecture(name)
    if row.objective not in OBJECTIVES:
        raise ValueError(
            f"--arch {name} cannot be trained: its objective is {row.objective!r}, and there are "
            f"{', '.join(OBJECTIVES)}."
        )
    return OBJECTIVES[row.objective](weights, row, Terms(**terms), ranks)


def register_objective(name: str, objective: type[Objective]) -> type[Objective]:
    """Add an objective that rows of the table of architectures may name; ValueError if it is taken."""
    if name in OBJECTIVES:
        raise ValueError(f"there is an objective {name!r} already; give another name.")
    OBJECTIVES[name] = objective
    return objective


class L1Objective(Objective):
    """ReLU's: error + l1 * mean L1 of the latents (PatchSAE's error with `by_norm`)."""

    def forward(
        self,
        x: Float[Tensor, "tokens d_in"],
        dead: Bool[Tensor, " d_sae"],
        cls: Bool[Tensor, " tokens"] | None = None,
    ) -> StepOutput:
        w = self.weights
        h = torch.addmm(w.b_enc, x - w.b_dec, w.W_enc)
        latents = h.relu()
        x_hat = torch.addmm(w.b_dec, latents, w.W_dec)
        loss = self._error(x, x_hat, h, dead, cls) + self.terms.l1 * latents.sum(1).mean()
        return reported(loss, x, x_hat, latents)

    def _error(
        self, x: Tensor, x_hat: Tensor, h: Tensor, dead: Tensor, cls: Tensor | None
    ) -> Tensor:
        errors = (x_hat - x).square()
        if self.terms.by_norm:
            errors = errors / x.norm(dim=1, keepdim=True).clamp_min(1e-8)
        ghosts: Tensor | float = 0.0
        if self.terms.ghost and bool(dead.any()):
            ghosts = ghost_errors(x - x_hat, h[:, dead], self.weights.W_dec[dead], errors)
        if (
            cls is not None and self.terms.mse_cls != 1.0
        ):  # PatchSAE weighs its errors, not its ghosts
            errors = errors * torch.where(cls, self.terms.mse_cls, 1.0)[:, None]
        errors = errors + ghosts
        return errors.mean() if self.terms.by_norm else errors.sum(1).mean()


class L0Objective(Objective):
    """JumpReLU's: error + AuxK, thresholds through a window and held where L0 is `k`.

    Rajamanoharan et al. (arXiv 2407.14435) let a penalty on L0 push against the error. Under Adam both
    move thresholds by the learning rate, which a short run is too short for: of 32 wanted, 17 after 200
    steps. Here the gradient moves thresholds against each other, and after each step all of them move
    together by THRESHOLD_GAIN * ln(L0 / k).
    """

    def forward(
        self,
        x: Float[Tensor, "tokens d_in"],
        dead: Bool[Tensor, " d_sae"],
        cls: Bool[Tensor, " tokens"] | None = None,
    ) -> StepOutput:
        del cls
        w = self.weights
        h = torch.addmm(w.b_enc, x - w.b_dec, w.W_enc)
        threshold = w.log_threshold.exp()
        latents = _JumpReLU.apply(h, threshold)
        x_hat = torch.addmm(w.b_dec, latents, w.W_dec)
        loss = (x_hat - x).square().sum(1).mean()
        return reported(loss + self._revival(x, x_hat, h, dead), x, x_hat, latents)

    @torch.no_grad()
    def after_update(self, out: StepOutput, n_tokens: int) -> None:
        """Move every threshold towards L0 = k of all processes (an L0 of less than 0.1 counts as 0.1)."""
        active = float(self.ranks.total(out.n_active.double()))
        l0 = max(active / (n_tokens * self.ranks.n), 0.1)
        threshold: Tensor = self.weights.log_threshold
        threshold.add_(THRESHOLD_GAIN * math.log(l0 / self.terms.k))

    def _revival(self, x: Tensor, x_hat: Tensor, h: Tensor, dead: Tensor) -> Tensor:
        """AuxK: aux * ||e - e_hat||^2 / ||e - mean e||^2, e_hat from d_in / 2 dead latents."""
        n = min(x.shape[1] // 2, int(dead.sum())) if self.terms.aux else 0
        if not n:
            return x.new_zeros(())
        hidden = h[:, dead]
        bar = hidden.detach().kthvalue(hidden.shape[1] - n + 1, dim=1, keepdim=True).values
        revived = torch.where(hidden >= bar, hidden.relu(), hidden.new_zeros(()))
        rest = (x - x_hat).detach()
        missed = (revived @ self.weights.W_dec[dead] - rest).square().sum(1).mean()
        centre = self.ranks.mean(rest.mean(0))
        spread = self.ranks.mean((rest - centre).square().sum(1).mean()).clamp_min(1e-8)
        return self.terms.aux * missed / spread


def reported(
    loss: Float[Tensor, ""],
    x: Float[Tensor, "tokens d_in"],
    x_hat: Float[Tensor, "tokens d_in"],
    latents: Float[Tensor, "tokens d_sae"],
) -> StepOutput:
    """The StepOutput of a dense objective."""
    active = latents.detach() > 0
    error = (x_hat.detach() - x).square().sum()
    return StepOutput(loss, error, active.sum(), active.any(0), x.new_zeros(()))


class TopKObjective(Objective):
    """The top-k family's: error of the chosen entries + AuxK, in float32 or wider."""

    def __init__(
        self, weights: TrainableSAE, row: Architecture, terms: Terms, ranks: Alone | None = None
    ) -> None:
        super().__init__(weights, row, terms, ranks)
        sizes = terms.groups or (weights.b_enc.numel(),)
        self.ends = tuple(sum(sizes[: i + 1]) for i in range(len(sizes)))
        self._selection = Selection(terms.select_dtype, screen=terms.screen, ranks=self.ranks)
        self._batches = 0

    def forward(
        self,
        x: Float[Tensor, "tokens d_in"],
        dead: Bool[Tensor, " d_sae"],
        cls: Bool[Tensor, " tokens"] | None = None,
    ) -> StepOutput:
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
        h, entries = self._chosen_by(self._selection, given)
        if self._selection.dtype == torch.bfloat16:
            if self._batches % COMPARED_EVERY == 0:
                _, expected = self._chosen_by(Selection(ranks=self.ranks), given)
                self.differing = share_not_in(entries, expected)
            self._batches += 1
        return h, entries

    def _chosen_by(self, selection: Selection, given: Encoder) -> tuple[Tensor, Entries]:
        choose = selection.of_tokens if self.row.k == "token" else selection.of_batch
        return choose(given, self.terms.k)

    @torch.no_grad()
    def _revival(
        self, given: Encoder, main: SparseReconstruction, dead: Tensor
    ) -> list[tuple[SparseReconstruction | Crowd, Tensor]]:
        """AuxK: aux * ||e - e_hat||^2 / ||e - mean e||^2, e_hat from d_in / 2 dead latents."""
        left, W_dec = main.residual, self.weights.W_dec
        n = min(left.shape[1] // 2, int(dead.sum())) if self.terms.aux else 0
        if not n:
            return []
        numbers = dead.nonzero().squeeze(1)
        hidden = torch.addmm(given.bias[numbers], given.x, given.rows[numbers].t())
        if len(numbers) > CROWDED * n:
            h, within = largest_of_tokens(hidden, n)
            entries = Entries(numbers[within.latents], within.starts, len(dead))
            revived: SparseReconstruction | Crowd = reconstruct(left, W_dec, entries, h)
        else:
            if n < len(numbers):
                bar = hidden.topk(n, dim=1, sorted=False).values.amin(1, keepdim=True)
                hidden.masked_fill_(hidden < bar, -torch.inf)
            revived = reconstruct_crowded(left, W_dec, numbers, hidden)
        centre = self.ranks.mean(left.mean(0))
        spread = self.ranks.mean((left - centre).square().sum(1).mean()).clamp_min(1e-8)
        return [(revived, self.terms.aux / (spread * len(left)))]


OBJECTIVES: dict[str, type[Objective]] = {
    "l1": L1Objective,
    "l0": L0Objective,
    "top_k": TopKObjective,
}
"""Every objective by the name that an architecture's row gives."""


def share_not_in(chosen: Entries, expected: Entries) -> float:
    """The share of `expected` entries that are not among `chosen`."""
    places = [e.tokens * e.d_sae + e.latents for e in (chosen, expected)]
    return float((~torch.isin(places[1], places[0])).float().mean()) if len(places[1]) else 0.0


def ghost_errors(
    residual: Float[Tensor, "tokens d_in"],
    h_dead: Float[Tensor, "tokens n_dead"],
    W_dead: Float[Tensor, "n_dead d_in"],
    errors: Float[Tensor, "tokens d_in"],
) -> Float[Tensor, "tokens d_in"]:
    """PatchSAE's ghost gradients: errors `(tokens, d_in)` of dead latents' guess at the residual r.

    g = exp(h_dead) W_dead, scaled to half of r's norm; (g - r)^2 / ||r||, each scaled to the size of
    the ordinary error beside it. Scales and r have no gradient. `h_dead (tokens, n_dead)` are
    pre-activations: after the ReLU every dead latent would be exp(0) = 1 and all would move alike.
    """
    residual = residual.detach()
    size = residual.norm(dim=1, keepdim=True)
    guess = h_dead.exp() @ W_dead
    guess = guess * (size / (1e-6 + 2 * guess.detach().norm(dim=1, keepdim=True)))
    ghosts = (guess - residual).square() / size.clamp_min(1e-8)
    return ghosts * (errors.detach() / (ghosts.detach() + 1e-6))


class _JumpReLU(torch.autograd.Function):
    """h where h > threshold; d/dthreshold = -threshold K((h - threshold) / width) / width."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(h, threshold)
        return torch.where(h > threshold, h, h.new_zeros(()))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        h, threshold = ctx.saved_tensors
        near = (h - threshold).abs() < BANDWIDTH / 2
        return (h > threshold) * grad, -(near * grad).sum(0) * threshold / BANDWIDTH
