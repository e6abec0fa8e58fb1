"""One resumable training loop for the world's small models, on a CPU or one GPU.

Knows optimisers, schedules, checkpoints and curves; knows nothing of what is trained. Batches and random
numbers are functions of the step number, so a resumed run ends with the bits of one that was never stopped.
Checkpoints are safetensors and JSON; nothing is pickled.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sae.storage import replacing
from training.kernels import has_fast_bfloat16
from training.launch import locked, stop_on_signal

CHECKPOINT = "checkpoint.safetensors"
GO_ON = "the same command goes on from there"


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
    about: Mapping[str, object] = field(default_factory=dict)
    """What else shapes the run (sizes of model and batch): another one does not go on from it."""

    @property
    def shape(self) -> dict[str, object]:
        """Everything that the weights of a step depend on."""
        names = ("steps", "lr", "warm_up", "weight_decay", "betas")
        return {**{name: getattr(self, name) for name in names}, **self.about}


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

    `loss_of(batch, step)` returns named losses with the total under "loss". Ctrl-C saves and raises
    KeyboardInterrupt. ValueError if `config.out` holds a run with other settings, or is in use.
    """
    with locked(config.out), stop_on_signal() as stop:
        weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimizer = _adam(weights, config)
        start = _resume(weights, optimizer, config)
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
        curve = Curve(config.out / "curve.jsonl", start)
        bar = tqdm(loader, initial=start, total=config.steps, desc=config.out.name, mininterval=5)
        for step, batch in enumerate(bar, start):
            losses = _step(weights, optimizer, batch, loss_of, step, config)
            done = step + 1
            if done % config.log_every == 0:
                bar.set_postfix(loss=curve.add(done, losses))
            if done % config.save_every == 0 or done == config.steps or stop.requested:
                _save(weights, optimizer, done, config)
            if stop.requested and done < config.steps:
                raise KeyboardInterrupt(f"step {done} is saved in {config.out}; {GO_ON}")


def _step(
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    loss_of: Callable[[dict[str, Tensor], int], dict[str, Tensor]],
    step: int,
    config: FitConfig,
) -> dict[str, Tensor]:
    """One step of the optimiser; its named losses. ValueError if the loss is not finite."""
    torch.manual_seed(step)  # what a loss draws by chance follows from the step alone
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    batch = {name: value.to(config.device, non_blocking=True) for name, value in batch.items()}
    kind = torch.device(config.device).type
    with torch.autocast(kind, torch.bfloat16, enabled=has_fast_bfloat16(kind)):
        losses = loss_of(batch, step)
    losses["loss"].backward()
    norm = nn.utils.clip_grad_norm_(weights.values(), 1.0)
    if not bool(norm.isfinite()):
        raise ValueError(
            f"the gradient of step {step} is {float(norm)}; what was saved before is as it was. Lower "
            "--lr, in another --out."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return losses


class Curve:
    """curve.jsonl: a line of losses now and then, up to the step that a run goes on from."""

    def __init__(self, path: Path, start: int) -> None:
        self._path, self._seen, self._began = path, start, time.time()
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= start]
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, step: int, losses: Mapping[str, Tensor]) -> float:
        """Write a line; the rounded loss."""
        row = {"step": step, **{name: round(v.item(), 4) for name, v in losses.items()}}
        row["steps_per_s"] = round((step - self._seen) / max(time.time() - self._began, 1e-9), 3)
        self._began, self._seen = time.time(), step
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row["loss"]


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that was cut off."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


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
    weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, step: int, config: FitConfig
) -> None:
    """Write the checkpoint whole or not at all."""
    tensors = {f"weight.{name}": p.detach().contiguous() for name, p in weights.items()}
    for name, p in weights.items():
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{name}"] = optimizer.state[p][key].contiguous()
    about = {
        "step": str(step),
        "shape": json.dumps(config.shape),
        "sha256": tensors_sha256(tensors),
    }
    with replacing(config.out / CHECKPOINT) as temporary:
        save_file(tensors, temporary, metadata=about)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _resume(
    weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, config: FitConfig
) -> int:
    """Load the newest checkpoint into `weights` and `optimizer`; the step to go on from.

    ValueError if it is damaged, or of a run with other settings.
    """
    path = config.out / CHECKPOINT
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
        step, tensors = int(about["step"]), load_file(path)
        if about.get("sha256", digest := tensors_sha256(tensors)) != digest:
            raise ValueError("its content is not what was written")
        moments = {n: (tensors[f"exp_avg.{n}"], tensors[f"exp_avg_sq.{n}"]) for n in weights}
        for name, p in weights.items():
            for tensor in (tensors[f"weight.{name}"], *moments[name]):
                if tensor.shape != p.shape:
                    raise ValueError(f"{name} has the shape {tuple(tensor.shape)}")
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be gone on from ({error}); delete it to begin anew."
        ) from error
    _check_shape(path, about, config)
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(tensors[f"weight.{name}"])
            first, second = (moment.to(p.device) for moment in moments[name])
            optimizer.state[p] = {
                "step": torch.tensor(float(step)),
                "exp_avg": first,
                "exp_avg_sq": second,
            }
    return step


def _check_shape(path: Path, about: Mapping[str, str], config: FitConfig) -> None:
    if "shape" not in about:
        sys.stderr.write(f"{path} is of an older PatchLens and does not say its settings\n")
        return
    now, then = json.loads(json.dumps(config.shape)), json.loads(about["shape"])
    for name in now | then:
        if now.get(name) != then.get(name):
            raise ValueError(
                f"{config.out} holds a run with --{name.replace('_', '-')} {then.get(name)}, not "
                f"{now.get(name)}; give the same options, or another --out."
            )
