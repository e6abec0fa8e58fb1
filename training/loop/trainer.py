"""One SAE in training: weights, optimiser, loss, scale, dead counters and threshold.

Knows where training starts from (b_dec and the scale, from the first buffer), what a step on a batch is and
which tensors say everything about it. Knows nothing of where batches come from, files or other SAEs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float
from torch import Tensor

from sae.architectures import architecture
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from training.loop.config import TrainConfig
from training.loop.distributed import Alone, ranks_of
from training.loop.objectives import StepOutput, objective_for
from training.loop.selection import largest_of_batch
from training.loop.weights import TrainableSAE, Update, group_sizes

THRESHOLD_SAMPLE = 2048
"""Tokens on which JumpReLU's first threshold is set."""
CHUNK = 65_536
"""Tokens looked at together, so that no copy of the whole buffer is made."""


class Progress(NamedTuple):
    """Figures of the batch at hand, over all processes."""

    loss: float
    fvu: float
    l0: float
    dead_fraction: float
    selection_differs: float | None = None
    """Of --select-dtype bfloat16: the share of latents that an exact choice would have replaced."""


class Trainer:
    """An SAE that learns. `start` or `load` it, `prepare` it, then call `step` with each batch."""

    def __init__(self, config: TrainConfig, d_model: int, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.ranks, device = ranks_of(accelerator), accelerator.device
        self.out, self.row = Path(config.out), architecture(config.arch)
        self.weights = TrainableSAE(
            config.arch, d_model, config.d_sae, seed=config.seed, init=config.init
        ).to(device)
        self.update = Update(self.weights, max_norm=config.clip)
        self.scale = 1.0
        self.threshold = torch.tensor(-1.0, device=device)
        self.smallest = torch.tensor(0.0, device=device)
        self.since_fired = torch.zeros(config.d_sae, dtype=torch.int64, device=device)
        self._dead_after = config.dead_tokens(config.batch_size * self.ranks.n)

    def start(self, buffer: Float[Tensor, "rows d_in"], tokens_per_image: int) -> None:
        """Set b_dec and the scale from the first `buffer (tokens, d)` of all processes."""
        centre, self.scale = centre_and_scale(buffer, self.config, tokens_per_image, self.ranks)
        with torch.no_grad():
            self.weights.b_dec.copy_(centre / self.scale)
            if self.row.threshold == "latent":
                self._start_thresholds(buffer[:: max(1, len(buffer) // THRESHOLD_SAMPLE)])

    def prepare(self) -> None:
        """Make the loss, shared between processes."""
        config = self.config
        objective = objective_for(
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

    def step(
        self,
        x: Float[Tensor, "tokens d_in"],
        number: int,
        cls: Bool[Tensor, " tokens"] | None = None,
    ) -> StepOutput:
        """Optimiser step `number` (from 0) on raw activations `x (tokens, d)` of this process.

        `cls (tokens,)` bool says which are CLS tokens, for --mse-cls.
        """
        where = {"cls": cls} if cls is not None and self.config.mse_cls != 1.0 else {}
        low = self.config.precision == "bf16"  # the sparse losses switch it off
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            out = self._objective(x / self.scale, self.dead, **where)
        self.accelerator.backward(out.loss)
        self.update.step(self.config.learning_rate(number))
        self._own.after_update(out, len(x))
        fired = self.ranks.total(out.fired.to(torch.int32)) > 0
        self.since_fired += len(x) * self.ranks.n
        self.since_fired.masked_fill_(fired, 0)
        if self.row.threshold == "scalar":
            self._average(out.smallest, self.config.threshold_memory(number))
        return out

    def progress(self, out: StepOutput, n_tokens: int, spread: Float[Tensor, ""]) -> Progress:
        """Figures of a step; `spread`: sum of squares of all processes' raw batch about its mean."""
        sums = torch.stack([out.loss.detach(), out.squared_error, out.n_active.float()])
        loss, error, active = self.ranks.total(sums).tolist()
        n = self.ranks.n
        variance = max(float(spread) / self.scale**2, 1e-12)
        dead = float(self.dead.float().mean())
        l0 = active / (n * n_tokens)
        return Progress(loss / n, error / variance, l0, dead, self._own.differing)

    @property
    def dead(self) -> Bool[Tensor, " d_sae"]:
        """`(d_sae,)` bool: latents that did not fire for long."""
        return self.since_fired >= self._dead_after

    def is_finite(self) -> bool:
        """Whether no weight or moment is NaN or infinite."""
        return all(bool(t.isfinite().all()) for t in self.tensors().values())

    def to_sae(self, where: BackboneRef) -> SparseAutoencoder:
        """The SAE as it stands, for raw activations, on the CPU.

        Before the threshold's average starts, the last batch's smallest active latent stands in.
        """
        threshold = float(self.threshold if self.threshold > 0 else self.smallest) * self.scale
        cfg = SAEConfig(
            architecture=self.row.name,
            d_in=len(self.weights.b_dec),
            d_sae=self.config.d_sae,
            backbone=where,
            k=self.config.k if self.row.k else None,
            threshold=threshold if self.row.threshold == "scalar" else None,
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
        """Set each latent's threshold to where L0 is 4 k on activations `x`; training lowers it."""
        w = self.weights
        h = torch.addmm(w.b_enc, x / self.scale - w.b_dec, w.W_enc)
        values, _ = largest_of_batch(h, 4 * self.config.k * len(h), self.ranks)
        smallest = self.ranks.smallest(values.min() if len(values) else h.new_tensor(torch.inf))
        smallest = smallest.nan_to_num(posinf=1e-3)
        w.log_threshold.fill_(float(smallest.clamp_min(1e-3).log()))

    def _average(self, smallest: Tensor, memory: float | None) -> None:
        """The threshold follows the smallest kept activation of all processes; none: it stays."""
        least = self.ranks.smallest(torch.where(smallest > 0, smallest, torch.inf))
        there = least.isfinite()
        self.smallest = torch.where(there, least, self.smallest)
        if memory is not None:
            averaged = self.threshold * memory + least * (1 - memory)
            new = torch.where(self.threshold < 0, least, averaged)
            self.threshold = torch.where(there, new, self.threshold)


def centre_and_scale(
    buffer: Float[Tensor, "rows d_in"], config: TrainConfig, tokens_per_image: int, ranks: Alone
) -> tuple[Float[Tensor, " d_in"], float]:
    """b_dec `(d)` of raw activations and the number to divide them by, the same on all processes.

    `buffer (tokens, d)` is this process's, image after image. ValueError if its activations do not
    differ or are not finite.
    """
    centre = first_centre(buffer, config, tokens_per_image, ranks)
    if config.scale == "none":
        return centre, 1.0
    origin = centre if config.scale == "spread" else torch.zeros_like(centre)
    squares = sum((rows - origin).square().sum() for rows in buffer.split(CHUNK))
    scale = float(ranks.mean(squares / len(buffer)).sqrt())
    if not 0 < scale < float("inf"):
        raise ValueError(
            f"the activations of layer {config.layer} have size {scale}; is it the right layer of "
            "the right backbone?"
        )
    return centre, scale


def first_centre(
    buffer: Float[Tensor, "rows d_in"], config: TrainConfig, tokens_per_image: int, ranks: Alone
) -> Float[Tensor, " d_in"]:
    """Where b_dec starts.

    median: geometric median of tokens. batch_median: of one batch, as Pach et al. image_median:
    PatchSAE's, over the images of one batch, each of them one point of all its tokens; then the mean
    over positions.
    """
    if config.b_dec == "zero":
        return torch.zeros_like(buffer[0])
    if config.b_dec == "mean":
        return ranks.mean(buffer.mean(0))
    if config.b_dec == "median":
        return geometric_median(buffer, ranks=ranks)
    if config.b_dec == "batch_median":
        return geometric_median(buffer[: config.batch_size], ranks=ranks)
    n = max(1, min(len(buffer), config.batch_size) // tokens_per_image)
    images = buffer[: n * tokens_per_image].reshape(n, -1)
    return geometric_median(images, ranks=ranks).view(tokens_per_image, -1).mean(0)


@torch.no_grad()
def geometric_median(
    points: Float[Tensor, "points d"],
    *,
    steps: int = 100,
    tolerance: float = 1e-5,
    ranks: Alone | None = None,
) -> Float[Tensor, " d"]:
    """The point `(d)` with the smallest sum of distances to `points (n, d)` of all processes.

    Weiszfeld's steps; as many at most as both papers' code makes.
    """
    ranks = ranks or Alone()
    centre = ranks.mean(points.mean(0))
    for _ in range(steps):
        weights = 1.0 / torch.cdist(points, centre[None]).clamp_min(1e-8)
        new = ranks.total(weights[:, 0] @ points) / ranks.total(weights.sum())
        moved = (new - centre).norm() / centre.norm().clamp_min(1e-8)
        centre = new
        if moved < tolerance:
            break
    return centre
