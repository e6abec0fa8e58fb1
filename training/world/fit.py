"""One resumable training loop for the world's small models, on a CPU or one GPU.

Knows optimisers, schedules, checkpoints and curves; knows nothing of what is trained. Batches are a
function of their step number, so a resumed run sees exactly the batches it would have seen.
Checkpoints are safetensors and JSON; nothing is pickled.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm


@dataclass(frozen=True)
class FitConfig:
    """What a run of `fit` needs to know."""

    out: Path
    steps: int
    lr: float = 1e-3
    warm_up: int = 300
    weight_decay: float = 0.05
    save_every: int = 250
    log_every: int = 25
    workers: int = 1
    device: str = "cpu"
    betas: tuple[float, float] = (0.9, 0.98)


class StepBatches(Dataset):
    """A map from step number to batch: `make(step)` builds the whole batch."""

    def __init__(self, make: Callable[[int], dict[str, Tensor]], steps: int) -> None:
        self.make, self.steps = make, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.make(step)


def learning_rate(step: int, config: FitConfig) -> float:
    """Linear warm-up, then a cosine down to 1 % of the peak."""
    if step < config.warm_up:
        return config.lr * (step + 1) / config.warm_up
    part = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return config.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))


def fit(
    model: nn.Module,
    make_batch: Callable[[int], dict[str, Tensor]],
    loss_of: Callable[[dict[str, Tensor], int], dict[str, Tensor]],
    config: FitConfig,
) -> None:
    """Train the parameters of `model` that require gradients; resumes from `config.out` if it can.

    `loss_of(batch, step)` returns named losses with the total under "loss".
    """
    config.out.mkdir(parents=True, exist_ok=True)
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = _adam(weights, config)
    start = _resume(weights, optimizer, config.out)
    if start >= config.steps:
        return
    loader = DataLoader(
        StepBatches(make_batch, config.steps),
        batch_size=None,
        sampler=range(start, config.steps),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        persistent_workers=False,
    )
    model.train()
    began, seen = time.time(), start
    bar = tqdm(loader, initial=start, total=config.steps, desc=config.out.name, mininterval=5)
    for step, batch in enumerate(bar, start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        batch = {name: value.to(config.device, non_blocking=True) for name, value in batch.items()}
        with torch.autocast(torch.device(config.device).type, torch.bfloat16):
            losses = loss_of(batch, step)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % config.log_every == 0:
            row = {"step": step + 1, **{name: round(v.item(), 4) for name, v in losses.items()}}
            row["steps_per_s"] = round((step + 1 - seen) / (time.time() - began), 3)
            began, seen = time.time(), step + 1
            with (config.out / "curve.jsonl").open("a") as curve:
                curve.write(json.dumps(row) + "\n")
            bar.set_postfix(loss=row["loss"])
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            _save(weights, optimizer, step + 1, config.out)


def _adam(weights: Mapping[str, Tensor], config: FitConfig) -> torch.optim.AdamW:
    """Adam with decay on matrices alone."""
    decay = [p for p in weights.values() if p.ndim > 1]
    plain = [p for p in weights.values() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=config.betas,
    )


def _save(
    weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, step: int, out: Path
) -> None:
    """Write the checkpoint whole or not at all."""
    tensors = {f"weight.{name}": p.detach().contiguous() for name, p in weights.items()}
    for name, p in weights.items():
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{name}"] = optimizer.state[p][key].contiguous()
    save_file(tensors, out / "checkpoint.tmp", metadata={"step": str(step)})
    os.replace(out / "checkpoint.tmp", out / "checkpoint.safetensors")


def _resume(weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, out: Path) -> int:
    """Load the newest checkpoint into `weights` and `optimizer`; the step to go on from."""
    if not (out / "checkpoint.safetensors").exists():
        return 0
    with safe_open(out / "checkpoint.safetensors", "pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(out / "checkpoint.safetensors")
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(tensors[f"weight.{name}"])
            optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg.{name}"].to(p.device),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(p.device),
            }
    return step
