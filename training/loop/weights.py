"""The weights while they are being trained: how they start, one Adam step, how they become an artifact.

Knows the weights' initialisation, the unit-norm decoder rows, Adam and the folding of the activation
scale. Knows nothing of losses, data, schedules or files. Training sees activations divided by one number, the
scale; `fold` multiplies it back into the biases and thresholds, which is exact because every
architecture is positively homogeneous.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sae.architectures import architecture
from sae.config import SAEConfig
from sae.model import SparseAutoencoder
from training import kernels

if TYPE_CHECKING:
    from training.loop.config import TrainConfig

MAX_NORM = 1.0
"""Gradients are scaled down to this norm (both papers' code clips at 1)."""


class TrainableSAE(nn.Module):
    """Parameters `W_enc (d_in, d_sae)`, `b_enc`, `W_dec (d_sae, d_in)`, `b_dec` [`log_threshold`].

    `name`: the architecture; one with a threshold a latent has `log_threshold (d_sae)`.

    Decoder rows start as random unit vectors, b_enc as zero, W_enc as the rows' transpose. As both
    papers' code has it, with `init` "uniform" the rows are Kaiming uniform before they get norm 1,
    and with "independent" W_enc is so too, by itself (PatchSAE). W_enc is laid out in memory as its
    transpose, the order in which its sparse gradient comes.
    """

    def __init__(self, name: str, d_in: int, d_sae: int, *, seed: int, init: str = "tied") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        rows = torch.empty(d_sae, d_in)
        if init == "tied":
            rows.normal_(generator=generator)
        else:
            rows.uniform_(-1, 1, generator=generator)  # any bound: the rows get norm 1
        rows /= rows.norm(dim=1, keepdim=True)
        own = rows.clone()
        if init == "independent":
            # fan-in of a (d_in, d_sae) matrix in torch's convention: its second size
            own.uniform_(-((6 / d_sae) ** 0.5), (6 / d_sae) ** 0.5, generator=generator)
        self.W_enc = nn.Parameter(own.t())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(rows)
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        if architecture(name).threshold == "latent":
            self.log_threshold = nn.Parameter(torch.zeros(d_sae))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Drop the part of W_dec's gradient along each unit row: it would only change norms."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad.addcmul_(self.W_dec, along, value=-1)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Give every decoder row norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min_(1e-12))

    @torch.no_grad()
    def fold(self, cfg: SAEConfig, scale: float) -> SparseAutoencoder:
        """An SAE for raw activations, on the CPU, from weights for activations / scale."""
        sae = SparseAutoencoder(cfg)
        sae.W_enc.copy_(self.W_enc)
        sae.W_dec.copy_(self.W_dec)
        sae.b_enc.copy_(self.b_enc * scale)
        sae.b_dec.copy_(self.b_dec * scale)
        if architecture(cfg.architecture).threshold == "latent":
            sae.get_parameter("threshold").copy_(self.log_threshold.exp() * scale)
        return sae.eval()


def group_sizes(cfg: "TrainConfig") -> tuple[int, ...] | None:
    """Sizes of nested groups, where the architecture has them: int(share * d_sae), the rest to the last."""
    if not architecture(cfg.arch).groups:
        return None
    sizes = [int(fraction * cfg.d_sae) for fraction in cfg.groups[:-1]]
    return (*sizes, cfg.d_sae - sum(sizes))


class Update:
    """Adam (0.9, 0.999) on the weights' gradients: clip, Adam, unit-norm decoder rows; `step` clears them.

    With compiled kernels both matrices are updated row by row, each row read once: the part of the
    gradient along a decoder row, its scaling, Adam and the row's norm together.

    `max_norm`: the norm to which gradients are scaled down (0: never). `state` gives the optimiser's
    tensors by name, `optimizer.<parameter>.<what>`; `load` puts them back, each moment in the memory
    order of its parameter.
    """

    def __init__(self, weights: TrainableSAE, *, max_norm: float = MAX_NORM) -> None:
        self.weights, self.max_norm = weights, max_norm
        self.optimizer = torch.optim.Adam(weights.parameters(), fused=True)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Apply the gradients that a backward left, at learning rate `lr`."""
        if hasattr(kernels.chosen(self.weights.W_dec), "adam"):
            self._by_rows(lr)
        else:
            self._by_torch(lr)
        self.optimizer.zero_grad(set_to_none=True)

    def _by_torch(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.weights.remove_parallel_gradient()
        if self.max_norm:
            nn.utils.clip_grad_norm_(self.weights.parameters(), self.max_norm)
        self.optimizer.step()
        self.weights.normalise_decoder()

    def _by_rows(self, lr: float) -> None:
        w, compiled = self.weights, kernels.chosen(self.weights.W_dec)
        given = [(p, p.grad) for p in w.parameters() if p.grad is not None]
        parameters = [p for p, _ in given]
        rows = [(_rows(p, p), _rows(grad, p)) for p, grad in given]
        parts = [
            compiled.square_norms(p, g, remove=parameter is w.W_dec)
            for parameter, (p, g) in zip(parameters, rows, strict=True)
        ]
        scale = torch.ones((), dtype=torch.float64, device=w.W_dec.device)
        if self.max_norm:
            norm = torch.stack([squares.double().sum() for _, squares in parts]).sum().sqrt() + 1e-6
            # a norm that is NaN must reach the weights, where the loss shows it
            scale = torch.where(norm <= self.max_norm, scale, self.max_norm / norm)
        for parameter, (p, g), (along, _) in zip(parameters, rows, parts, strict=True):
            slot = self._slot(parameter)
            slot["step"] += 1
            compiled.adam(
                p,
                g,
                _rows(slot["exp_avg"], parameter),
                _rows(slot["exp_avg_sq"], parameter),
                along,
                scale=scale,
                lr=lr,
                step=int(slot["step"]),
                unit=parameter is w.W_dec,
            )

    def _slot(self, parameter: Tensor) -> dict[str, Tensor]:
        """torch's own state of a parameter's Adam, made at the first step."""
        slot = self.optimizer.state[parameter]
        if not slot:
            slot["step"] = torch.zeros((), dtype=torch.float32)
            slot["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            slot["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return slot

    def state(self) -> dict[str, Tensor]:
        state = self.optimizer.state_dict()["state"]
        return {f"optimizer.{n}.{what}": t for n, slot in state.items() for what, t in slot.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, what = name.split(".")
                like = parameters[int(number)]
                if tensor.shape == like.shape:
                    tensor = torch.empty_like(like).copy_(tensor)
                slots.setdefault(int(number), {})[what] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _rows(matrix: Tensor, parameter: Tensor) -> Tensor:
    """A parameter, its gradient or moment as rows that lie in memory as the parameter's do."""
    if matrix.ndim == 1:
        return matrix.detach()[None]
    return (matrix if parameter.is_contiguous() else matrix.t()).detach()
