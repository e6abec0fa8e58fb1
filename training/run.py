"""One training run: weights, optimiser, stream and counters, stepped and put on disk as one.

Knows what a step is and what has to be saved to go on exactly. Knows nothing of the command line,
progress bars, evaluation or the Hub.
"""

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from sae.backbones import Backbone
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from training import checkpoints
from training.activations import ActivationStream, Position
from training.config import TrainConfig
from training.interrupt import StopRequest
from training.objective import Objective, StepOutput, largest_of_batch
from training.parameters import TrainableSAE, geometric_median, group_sizes
from training.sources import ImageSource

MEDIAN_SAMPLE = 16_384
"""Tokens over which b_dec's geometric median is taken."""
THRESHOLD_SAMPLE = 2048
"""Tokens on which JumpReLU's first threshold is set."""


class Progress(NamedTuple):
    """Figures of the batch at hand, over all processes."""

    loss: float
    fvu: float
    l0: float
    dead_fraction: float


class Run:
    """A run at some step. Make one, `start` or `restore` it, then call `step` with each batch."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        backbone: Backbone,
        source: ImageSource,
        stop: StopRequest,
    ) -> None:
        self.config, self.accelerator, self.backbone, self.stop = (
            config,
            accelerator,
            backbone,
            stop,
        )
        self.n_processes, self.device = accelerator.num_processes, accelerator.device
        self.layer = backbone.resolve_layer(config.layer)
        self.weights = TrainableSAE(
            config.arch, backbone.d_model, config.d_sae, seed=config.seed
        ).to(self.device)
        self.optimizer = torch.optim.Adam(self.weights.parameters(), fused=True)
        self.stream = ActivationStream(
            backbone,
            self.layer,
            source.first(config.images),
            tokens=config.tokens,
            batch_size=config.batch_size,
            buffer=config.buffer,
            image_batch=config.image_batch,
            seed=config.seed,
            rank=accelerator.process_index,
            world=self.n_processes,
            should_stop=lambda: stop.requested and self.n_processes == 1,
        )
        self.n_steps, self.seconds, self.scale = 0, 0.0, 1.0
        self.threshold = torch.tensor(-1.0, device=self.device)
        self.since_fired = torch.zeros(config.d_sae, dtype=torch.int64, device=self.device)
        self._since = time.monotonic()

    def start(self) -> None:
        """Set b_dec to the geometric median and the scale from the first buffer, on all ranks."""
        buffer = self.stream.first_buffer()
        every = max(1, len(buffer) // MEDIAN_SAMPLE)
        centre = broadcast(geometric_median(buffer[::every]))
        spread = broadcast((buffer - centre).square().sum(1).mean())
        self.scale = float(spread.sqrt())
        if not 0 < self.scale < float("inf"):
            raise ValueError(
                f"the activations of layer {self.layer} have spread {self.scale}; is it the right "
                "layer of the right backbone?"
            )
        with torch.no_grad():
            self.weights.b_dec.copy_(centre / self.scale)
            if self.config.arch == "jumprelu":
                self._start_thresholds(buffer[:: max(1, len(buffer) // THRESHOLD_SAMPLE)])
        self._prepare()

    def _start_thresholds(self, x: Tensor) -> None:
        """Set JumpReLU's thresholds to where L0 is 4 k on activations `x`; training lowers it."""
        w = self.weights
        h = torch.addmm(w.b_enc, x / self.scale - w.b_dec, w.W_enc)
        values, _ = largest_of_batch(h, 4 * self.config.k * len(h))
        smallest = broadcast(values.min() if len(values) else h.new_tensor(1e-3))
        w.log_threshold.fill_(float(smallest.clamp_min(1e-3).log()))

    def restore(self) -> list[str]:
        """Go on from the newest checkpoint in the config's `out`; returns what was amiss."""
        found, damaged = checkpoints.newest(Path(self.config.out), self.config)
        if found.state["n_processes"] != self.n_processes:
            raise ValueError(
                f"--resume: {found.folder} was made by {found.state['n_processes']} processes, "
                f"this run has {self.n_processes}; launch as many."
            )
        with torch.no_grad():
            for name, parameter in self.weights.named_parameters():
                parameter.copy_(found.tensors[f"weights.{name}"])
        checkpoints.load_optimizer(self.optimizer, found.tensors)
        self.since_fired.copy_(found.tensors["since_fired"])
        self.threshold.copy_(found.tensors["threshold"])
        self.n_steps, self.seconds = found.state["step"], found.state["seconds"]
        self.scale = found.state["scale"]
        self.stream.n_images = found.state["n_images"]
        self.stream.position = Position(**found.state["position"])
        self._prepare()
        return damaged

    def save(self) -> Path | None:
        """Write a checkpoint; returns its folder on the main process, None on the others."""
        if not self.accelerator.is_main_process:
            return None
        tensors = {f"weights.{n}": p for n, p in self.weights.named_parameters()}
        tensors |= checkpoints.flat_optimizer(self.optimizer)
        tensors |= {"since_fired": self.since_fired, "threshold": self.threshold}
        state = {
            "n_images": self.stream.n_images,
            "position": dataclasses.asdict(self.stream.position),
            "scale": self.scale,
            "seconds": self.elapsed,
            "n_processes": self.n_processes,
        }
        keep = self.config.keep_checkpoints
        return checkpoints.save(
            Path(self.config.out), self.n_steps, self.config, state, tensors, keep
        )

    def step(self, x: Tensor) -> StepOutput:
        """One optimiser step on raw activations `x (tokens, d_in)` of this process."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate(self.n_steps)
        out = self._objective(x / self.scale, self.dead)
        self.accelerator.backward(out.loss)
        self.weights.remove_parallel_gradient()
        self.accelerator.clip_grad_norm_(self.weights.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.weights.normalise_decoder()
        self.n_steps += 1
        self._count(out, len(x))
        return out

    def progress(self, x: Tensor, out: StepOutput) -> Progress:
        """Figures of the step that was made on `x`; a loss that is not finite is a ValueError."""
        spread = (x - x.mean(0)).square().sum() / self.scale**2
        sums = torch.stack([out.loss.detach(), out.squared_error, spread, out.n_active.float()])
        loss, error, spread, active = self.accelerator.reduce(sums, "sum").tolist()
        if loss != loss or abs(loss) == float("inf"):
            raise ValueError(
                f"the loss became {loss} in step {self.n_steps}; nothing saved was lost. "
                "Lower --lr and go on from the last checkpoint in a new --out, or start again."
            )
        n = self.n_processes
        dead = float(self.dead.float().mean())
        return Progress(loss / n, error / max(spread, 1e-12), active / (n * len(x)), dead)

    def to_sae(self) -> SparseAutoencoder:
        """The SAE as it stands, for raw activations, on the CPU."""
        arch, backbone = self.config.arch, self.backbone
        threshold = max(float(self.threshold), 0.0) * self.scale
        cfg = SAEConfig(
            architecture=arch,
            d_in=backbone.d_model,
            d_sae=self.config.d_sae,
            backbone=BackboneRef(
                backbone.id, self.layer, self.config.tokens, backbone.revision, backbone.family
            ),
            k=self.config.k if arch in ("topk", "batch_topk", "matryoshka") else None,
            threshold=threshold if arch in ("batch_topk", "matryoshka") else None,
            group_sizes=group_sizes(self.config),
        )
        return self.weights.fold(cfg, self.scale)

    @property
    def dead(self) -> Tensor:
        """`(d_sae,)` bool: latents that did not fire for `dead_after` tokens."""
        total = self.config.steps * self.config.batch_size * self.n_processes
        after = self.config.dead_after or max(1, min(10_000_000, total // 10))
        return self.since_fired >= after

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, those before a resumption included."""
        return self.seconds + time.monotonic() - self._since

    def _prepare(self) -> None:
        objective = Objective(
            self.weights,
            self.config.arch,
            k=self.config.k,
            l1=self.config.l1,
            aux=self.config.aux,
            groups=group_sizes(self.config),
        )
        self._objective = self.accelerator.prepare_model(objective)

    def _count(self, out: StepOutput, n_tokens: int) -> None:
        """Dead-latent counters, the threshold and the wish to stop, agreed between processes."""
        smallest = out.smallest
        fired = out.fired
        if self.n_processes > 1:
            asked = torch.tensor([self.stop.requested], device=self.device)
            shared = torch.cat([fired, asked]).to(torch.int32)
            shared = self.accelerator.reduce(shared, "sum") > 0
            fired, self.stop.requested = shared[:-1], bool(shared[-1])
            smallest = self.accelerator.reduce(smallest, "mean")
        self.since_fired += n_tokens * self.n_processes
        self.since_fired.masked_fill_(fired, 0)
        if self.n_steps <= min(1000, self.config.steps // 2):
            return
        keep = 1 - 1 / min(1000, max(1, self.config.steps // 10))
        averaged = self.threshold * keep + smallest * (1 - keep)
        self.threshold = torch.where(self.threshold < 0, smallest, averaged)
