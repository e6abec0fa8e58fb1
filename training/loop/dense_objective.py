"""The losses of relu and jumprelu, whose early training is dense: plain autograd.

Knows losses. Knows nothing of data, optimisers, schedules or files.
"""

import torch
from torch import Tensor, nn

from training.loop.distributed import Alone
from training.loop.parameters import TrainableSAE
from training.loop.step_output import StepOutput

BANDWIDTH = 0.05
"""Width of JumpReLU's straight-through window, in units of the normalised activations."""
SPARSITY_WEIGHT = 0.1
"""Weight of JumpReLU's penalty on missing the wanted L0."""


class DenseObjective(nn.Module):
    """A TrainableSAE with its loss; calling it is one forward, ready for backward.

    relu: error + `l1` * mean L1 of the latents. The error is mean ||x - x_hat||^2, or with
    `by_norm` PatchSAE's mean over tokens and dimensions of (x - x_hat)^2 / ||x||; `mse_cls` weighs
    that of CLS tokens, and `ghost` adds ghost gradients for dead latents. jumprelu: mean
    ||x - x_hat||^2 + a penalty on missing the L0 `k` + `aux` * AuxK for dead latents. `ranks`: the
    processes that share a batch.
    """

    def __init__(
        self,
        weights: TrainableSAE,
        architecture: str,
        *,
        k: int,
        l1: float = 0.0,
        aux: float = 0.0,
        by_norm: bool = False,
        mse_cls: float = 1.0,
        ghost: bool = False,
        ranks: Alone | None = None,
    ) -> None:
        super().__init__()
        self.weights, self.architecture, self.k, self.l1 = weights, architecture, k, l1
        self.aux, self.by_norm, self.mse_cls, self.ghost = aux, by_norm, mse_cls, ghost
        self.ranks = ranks or Alone()

    def forward(self, x: Tensor, dead: Tensor, cls: Tensor | None = None) -> StepOutput:
        """The loss on activations `x (tokens, d_in)`.

        `dead (d_sae,)` bool marks dead latents, `cls (tokens,)` bool CLS tokens (for mse_cls).
        """
        w = self.weights
        h = torch.addmm(w.b_enc, x - w.b_dec, w.W_enc)
        if self.architecture == "relu":
            latents = h.relu()
            x_hat = torch.addmm(w.b_dec, latents, w.W_dec)
            loss = self._relu_loss(x, x_hat, h, dead, cls) + self.l1 * latents.sum(1).mean()
        else:
            threshold = w.log_threshold.exp()
            latents = _JumpReLU.apply(h, threshold)
            x_hat = torch.addmm(w.b_dec, latents, w.W_dec)
            loss = (x_hat - x).square().sum(1).mean() + self._missed_l0(h, threshold)
            loss = loss + self._revival(x, x_hat, h, dead)
        active = latents.detach() > 0
        error = (x_hat.detach() - x).square().sum()
        return StepOutput(loss, error, active.sum(), active.any(0), x.new_zeros(()))

    def _relu_loss(
        self, x: Tensor, x_hat: Tensor, h: Tensor, dead: Tensor, cls: Tensor | None
    ) -> Tensor:
        errors = (x_hat - x).square()
        if self.by_norm:
            errors = errors / x.norm(dim=1, keepdim=True).clamp_min(1e-8)
        if cls is not None and self.mse_cls != 1.0:
            errors = errors * torch.where(cls, self.mse_cls, 1.0)[:, None]
        if self.ghost and bool(dead.any()):
            errors = errors + ghost_errors(x - x_hat, h[:, dead], self.weights.W_dec[dead], errors)
        return errors.mean() if self.by_norm else errors.sum(1).mean()

    def _missed_l0(self, h: Tensor, threshold: Tensor) -> Tensor:
        """SPARSITY_WEIGHT * (L0 / k - 1)^2 of all processes, with its exact gradient from each."""
        l0 = _Step.apply(h, threshold).sum(1).mean()
        mine = l0.detach()
        miss = self.ranks.mean(mine) / self.k - 1
        return SPARSITY_WEIGHT * (miss.square() + 2 * miss * (l0 - mine) / self.k)

    def _revival(self, x: Tensor, x_hat: Tensor, h: Tensor, dead: Tensor) -> Tensor:
        """AuxK: aux * ||e - e_hat||^2 / ||e - mean e||^2, e_hat from d_in / 2 dead latents."""
        n = min(x.shape[1] // 2, int(dead.sum())) if self.aux else 0
        if not n:
            return x.new_zeros(())
        hidden = h[:, dead]
        bar = hidden.detach().kthvalue(hidden.shape[1] - n + 1, dim=1, keepdim=True).values
        revived = torch.where(hidden >= bar, hidden.relu(), hidden.new_zeros(()))
        rest = (x - x_hat).detach()
        missed = (revived @ self.weights.W_dec[dead] - rest).square().sum(1).mean()
        centre = self.ranks.mean(rest.mean(0))
        spread = self.ranks.mean((rest - centre).square().sum(1).mean()).clamp_min(1e-8)
        return self.aux * missed / spread


def ghost_errors(residual: Tensor, h_dead: Tensor, W_dead: Tensor, errors: Tensor) -> Tensor:
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
