"""One SAE in training: weights, optimiser, loss, scale, dead counters and threshold.

Knows what a step on a batch is and which tensors say everything about it. Knows nothing of where
batches come from, files or other SAEs in training.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from training.loop.config import TrainConfig
from training.loop.distributed import ranks_of
from training.loop.initialisation import centre_and_scale
from training.loop.objective import Objective, StepOutput
from training.loop.parameters import TrainableSAE, group_sizes
from training.loop.selection import largest_of_batch
from training.loop.update import Update

THRESHOLD_SAMPLE = 2048
"""Tokens on which JumpReLU's first threshold is set."""
AVERAGED = ("batch_topk", "matryoshka")
"""Architectures whose threshold is an average over batches."""


class Progress(NamedTuple):
    """Figures of the batch at hand, over all processes."""

    loss: float
    fvu: float
    l0: float
    dead_fraction: float
    selection_differs: float | None = None
    """Of --select-dtype bfloat16: the share of latents that an exact choice would have replaced."""


class Trainee:
    """An SAE that learns. `start` or `load` it, `prepare` it, then call `step` with each batch."""

    def __init__(self, config: TrainConfig, d_model: int, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.ranks, device = ranks_of(accelerator), accelerator.device
        self.out = Path(config.out)
        self.weights = TrainableSAE(
            config.arch, d_model, config.d_sae, seed=config.seed, init=config.init
        ).to(device)
        self.update = Update(self.weights, max_norm=config.clip)
        self.scale = 1.0
        self.threshold = torch.tensor(-1.0, device=device)
        self.smallest = torch.tensor(0.0, device=device)
        self.since_fired = torch.zeros(config.d_sae, dtype=torch.int64, device=device)
        self._dead_after = config.dead_tokens(config.batch_size * self.ranks.n)

    def start(self, buffer: Tensor, tokens_per_image: int) -> None:
        """Set b_dec and the scale from the first `buffer (tokens, d)` of all processes."""
        centre, self.scale = centre_and_scale(buffer, self.config, tokens_per_image, self.ranks)
        with torch.no_grad():
            self.weights.b_dec.copy_(centre / self.scale)
            if self.config.arch == "jumprelu":
                self._start_thresholds(buffer[:: max(1, len(buffer) // THRESHOLD_SAMPLE)])

    def prepare(self) -> None:
        """Make the loss, shared between processes."""
        config = self.config
        objective = Objective(
            self.weights,
            config.arch,
            k=config.k,
            l1=config.l1,
            aux=config.aux,
            groups=group_sizes(config),
            by_norm=config.loss == "patchsae",
            mse_cls=config.mse_cls,
            ghost=config.ghost,
            select_dtype=getattr(torch, config.select_dtype),
            ranks=self.ranks,
        )
        self._own = objective
        self._objective = self.accelerator.prepare_model(objective)

    def step(self, x: Tensor, number: int, cls: Tensor | None = None) -> StepOutput:
        """Optimiser step `number` (from 0) on raw activations `x (tokens, d)` of this process.

        `cls (tokens,)` bool says which are CLS tokens, for --mse-cls.
        """
        where = {"cls": cls} if cls is not None and self.config.mse_cls != 1.0 else {}
        with self._precision():
            out = self._objective(x / self.scale, self.dead, **where)
        self.accelerator.backward(out.loss)
        self.update.step(self.config.learning_rate(number))
        fired = self.ranks.total(out.fired.to(torch.int32)) > 0
        self.since_fired += len(x) * self.ranks.n
        self.since_fired.masked_fill_(fired, 0)
        if self.config.arch in AVERAGED:
            self._average(out.smallest, self.config.threshold_memory(number))
        return out

    def progress(self, out: StepOutput, n_tokens: int, spread: Tensor) -> Progress:
        """Figures of a step; `spread`: sum of squares of all processes' raw batch about its mean."""
        sums = torch.stack([out.loss.detach(), out.squared_error, out.n_active.float()])
        loss, error, active = self.ranks.total(sums).tolist()
        n = self.ranks.n
        variance = max(float(spread) / self.scale**2, 1e-12)
        dead = float(self.dead.float().mean())
        l0, differs = active / (n * n_tokens), getattr(self._own, "differing", None)
        return Progress(loss / n, error / variance, l0, dead, differs)

    @property
    def dead(self) -> Tensor:
        """`(d_sae,)` bool: latents that did not fire for long."""
        return self.since_fired >= self._dead_after

    def is_finite(self) -> bool:
        """Whether no weight or moment is NaN or infinite."""
        return all(bool(t.isfinite().all()) for t in self.tensors().values())

    def to_sae(self, where: BackboneRef) -> SparseAutoencoder:
        """The SAE as it stands, for raw activations, on the CPU.

        Before the threshold's average starts, the last batch's smallest active latent stands in.
        """
        arch = self.config.arch
        threshold = float(self.threshold if self.threshold > 0 else self.smallest) * self.scale
        cfg = SAEConfig(
            architecture=arch,
            d_in=len(self.weights.b_dec),
            d_sae=self.config.d_sae,
            backbone=where,
            k=self.config.k if arch in ("topk", *AVERAGED) else None,
            threshold=threshold if arch in AVERAGED else None,
            group_sizes=group_sizes(self.config),
        )
        return self.weights.fold(cfg, self.scale)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes, by name."""
        tensors = {f"weights.{n}": p.detach() for n, p in self.weights.named_parameters()}
        counters = {"since_fired": self.since_fired, "smallest": self.smallest}
        return {**tensors, **self.update.state(), **counters, "threshold": self.threshold}

    def load(self, tensors: Mapping[str, Tensor], scale: float) -> None:
        """Put back what `tensors` gave."""
        with torch.no_grad():
            for name, parameter in self.weights.named_parameters():
                parameter.copy_(tensors[f"weights.{name}"])
        self.update.load(tensors)
        self.since_fired.copy_(tensors["since_fired"])
        self.threshold.copy_(tensors["threshold"])
        self.smallest.copy_(tensors["smallest"])
        self.scale = scale

    def _start_thresholds(self, x: Tensor) -> None:
        """Set JumpReLU's thresholds to where L0 is 4 k on activations `x`; training lowers it."""
        w = self.weights
        h = torch.addmm(w.b_enc, x / self.scale - w.b_dec, w.W_enc)
        values, _ = largest_of_batch(h, 4 * self.config.k * len(h), self.ranks)
        smallest = self.ranks.smallest(values.min() if len(values) else h.new_tensor(torch.inf))
        smallest = smallest.nan_to_num(posinf=1e-3)
        w.log_threshold.fill_(float(smallest.clamp_min(1e-3).log()))

    def _average(self, smallest: Tensor, memory: float | None) -> None:
        """The threshold follows the smallest kept activation of all processes; none: it stays."""
        found = self.ranks.smallest(torch.where(smallest > 0, smallest, torch.inf))
        there = found.isfinite()
        self.smallest = torch.where(there, found, self.smallest)
        if memory is not None:
            averaged = self.threshold * memory + found * (1 - memory)
            new = torch.where(self.threshold < 0, found, averaged)
            self.threshold = torch.where(there, new, self.threshold)

    def _precision(self) -> contextlib.AbstractContextManager:
        if self.config.precision == "bf16" and self.config.arch in ("relu", "jumprelu"):
            return torch.autocast(self.accelerator.device.type, torch.bfloat16)
        return contextlib.nullcontext()
