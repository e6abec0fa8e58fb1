"""One optimiser step on a TrainableSAE: clip, Adam, unit-norm decoder rows.

Knows Adam and the decoder's constraint. Knows nothing of losses, schedules or files. With
compiled kernels both matrices are updated row by row, each row read once: the part of the gradient
along a decoder row, its scaling, Adam and the row's norm together.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training import kernels
from training.loop.parameters import TrainableSAE

MAX_NORM = 1.0
"""Gradients are scaled down to this norm (both papers' code clips at 1)."""


class Update:
    """Adam (0.9, 0.999) on the weights' gradients; `step` also clears them.

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
        parameters = [p for p in w.parameters() if p.grad is not None]
        rows = [(_rows(p, p), _rows(p.grad, p)) for p in parameters]
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
