"""Fits a head to few labelled pictures, on a frozen CLIP: one epoch after another, resumable.

Knows losses, batches and checkpoints; knows nothing of files of heads or of what is measured. What
does not change is computed once: image features where the vision tower has no prompts (CoOp, linear
probe), class weights where the text has none (VPT, linear probe).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sae.adaptation.heads import Head
from sae.backbones.prompting import ClipParts
from sae.errors import ArtifactError
from sae.storage import read_arrays, write_arrays
from training.launch import StopRequest
from training.tasks.data import Labelled

_NEXT = "Train anew with --overwrite."
CACHE_BYTES = 1 << 30
"""Preprocessed pictures are kept up to this size, else made anew each epoch."""


@dataclass(frozen=True)
class FitOptions:
    """How long and how fast."""

    epochs: int
    lr: float
    batch: int
    weight_decay: float
    seed: int


class HeadLoss(nn.Module):
    """Head and loss as one module, so that data parallelism sees one forward."""

    def __init__(
        self, head: Head, parts: ClipParts, fixed_weights: Float[Tensor, "classes d_proj"] | None
    ) -> None:
        super().__init__()
        self.head = head
        self._parts, self._fixed = (parts,), fixed_weights

    def forward(
        self, inputs: Float[Tensor, "images ..."], labels: Int64[Tensor, " images"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of pixels (B, 3, H, W), or of cached features (B, d_proj)."""
        (parts,) = self._parts
        features = inputs
        if inputs.dim() == 4:
            features = parts.image_features(
                {"pixel_values": inputs}, self.head.vision_prompts(), cls_only=True
            )
        weights = self._fixed
        if weights is None:
            weights = self.head.class_weights(parts, self.head.class_names)
        bias = self.head.bias(len(weights)).to(weights.device)
        unit = F.normalize(features.float(), dim=-1)
        return F.cross_entropy(parts.scale * (unit @ weights.T) + bias, labels)


class Inputs:
    """`inputs[numbers]`: what HeadLoss takes, on the device, cached as far as that is right."""

    def __init__(self, parts: ClipParts, data: Labelled, *, features: bool) -> None:
        self._parts, self._data, self._features = parts, data, features
        self._cache: Tensor | None = None
        first = self._make([0])
        size = first.numel() * first.element_size() * len(data)
        if features or size <= CACHE_BYTES:
            chunks = [range(s, min(s + 32, len(data))) for s in range(0, len(data), 32)]
            self._cache = torch.cat([self._make(list(chunk)) for chunk in chunks])

    def __getitem__(self, numbers: Int64[np.ndarray, " images"]) -> Float[Tensor, "images ..."]:
        if self._cache is not None:
            return self._cache[torch.from_numpy(numbers)].to(self._parts.backbone.device)
        return self._make(numbers.tolist()).to(self._parts.backbone.device)

    @torch.no_grad()
    def _make(self, numbers: list[int]) -> Tensor:
        inputs = self._parts.backbone.preprocess(self._data.pictures(numbers))
        if self._features:
            return self._parts.image_features(inputs).float()
        return inputs["pixel_values"]


def fit(
    head: Head,
    parts: ClipParts,
    data: Labelled,
    options: FitOptions,
    accelerator: Accelerator,
    stop: StopRequest,
    checkpoint: Path,
) -> list[float]:
    """Train `head` in place; the mean loss of each epoch run here. Stops early if asked to.

    `checkpoint` is written after every epoch and read if it is there; the batches of an epoch
    depend on seed and epoch only, so a resumed run ends with the bits of an uninterrupted one. A damaged
    one is told, and training begins with the first epoch. ValueError for a loss that is not finite.
    """
    prompted = head.vision_prompts() is not None
    inputs = Inputs(parts, data, features=not prompted)
    weights = head.class_weights(parts, head.class_names)
    fixed = None if weights.requires_grad else weights
    head.to(parts.backbone.device).train()
    decay = options.weight_decay * head.weight_decay_share
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.lr, weight_decay=decay)
    try:
        first = restore(checkpoint, head, optimizer)
    except ArtifactError as error:
        accelerator.print(f"The checkpoint is damaged, training begins again: {error}")
        first = 0
    module, optimizer = accelerator.prepare(HeadLoss(head, parts, fixed), optimizer)
    losses = []
    shown = not accelerator.is_main_process
    with tqdm(
        total=options.epochs, initial=first, unit="epoch", disable=shown, desc=head.kind
    ) as bar:
        for epoch in range(first, options.epochs):
            losses.append(_epoch(module, optimizer, inputs, data, options, epoch, accelerator))
            check_finite(losses[-1], head, options, epoch)
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
            if accelerator.is_main_process:
                keep(checkpoint, head, optimizer, epoch + 1)
            if stop.requested:
                break
    head.eval()
    return losses


def _epoch(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    data: Labelled,
    options: FitOptions,
    epoch: int,
    accelerator: Accelerator,
) -> float:
    rng = np.random.Generator(np.random.PCG64([options.seed, epoch]))
    order = rng.permutation(len(data))
    n_processes, rank = accelerator.num_processes, accelerator.process_index
    size = max(n_processes, min(options.batch, len(data)))
    batches = [order[s : s + size] for s in range(0, len(order), size)]
    batches = [batch for batch in batches if len(batch) >= n_processes]
    total = 0.0
    for number, batch in enumerate(batches):
        done = (epoch + number / len(batches)) / options.epochs
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options.lr, done)
        mine = batch[rank::n_processes]
        labels = torch.from_numpy(data.labels[mine]).to(accelerator.device)
        loss = module(inputs[mine], labels)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        total += float(loss.detach())
    mean = torch.tensor(total / len(batches), device=accelerator.device)
    return float(accelerator.reduce(mean, "mean"))


def check_finite(loss: float, head: Head, options: FitOptions, epoch: int) -> None:
    """ValueError that names --lr if an epoch's loss, or a weight after it, is NaN or infinite."""
    broken = [name for name, value in head.named_parameters() if not value.isfinite().all()]
    if broken or not math.isfinite(loss):
        what = f"the weights {broken[0]} are NaN or infinite" if broken else f"the loss is {loss}"
        raise ValueError(
            f"{what} after epoch {epoch + 1} of {head.kind}; nothing of this epoch was saved. Give a "
            f"smaller --lr than {options.lr:g}, with --overwrite or another --out."
        )


def learning_rate(peak: float, done: float) -> float:
    """Linear warm-up over the first twentieth, then half a cosine to 0; `done` is 0 … 1."""
    return peak * min(1.0, (done + 0.005) / 0.05) * 0.5 * (1 + float(np.cos(np.pi * done)))


def keep(checkpoint: Path, head: Head, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    """Write weights, moments and the number of epochs done, whole or not at all."""
    tensors = {"epoch": np.array(epoch)}
    state = optimizer.state_dict()["state"]
    for number, (name, parameter) in enumerate(head.named_parameters()):
        tensors[f"weight.{name}"] = parameter.detach().cpu().numpy()
        for key, value in state[number].items():
            tensors[f"{key}.{name}"] = torch.as_tensor(value).cpu().numpy()
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(checkpoint, tensors, {"kind": head.kind})


def restore(checkpoint: Path, head: Head, optimizer: torch.optim.Optimizer) -> int:
    """Read a checkpoint into head and optimizer, if there is one; the epochs done.

    ArtifactError, before anything is changed, if it is damaged.
    """
    if not checkpoint.is_file():
        return 0
    arrays, _ = read_arrays(checkpoint, _NEXT)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for name, parameter in head.named_parameters():
        for key in ("weight", "exp_avg", "exp_avg_sq"):
            there = tensors.get(f"{key}.{name}")
            if there is None or there.shape != parameter.shape or f"step.{name}" not in tensors:
                raise ArtifactError(checkpoint, f"no {key} of {name}", "the head's own", _NEXT)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.copy_(tensors[f"weight.{name}"])
            optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
    return int(tensors["epoch"])


def read_epoch(checkpoint: Path) -> int:
    """Epochs that a checkpoint has done; 0 if there is none."""
    return int(read_arrays(checkpoint, _NEXT)[0]["epoch"]) if checkpoint.is_file() else 0
