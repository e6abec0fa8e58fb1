"""A run's state on disk: written whole, found again, never pickled.

    OUT/checkpoints/step_00000100/state.safetensors   weights, Adam's moments, counters
    OUT/checkpoints/step_00000100/state.json          step, stream position, config, sha256

Knows files and named tensors. Knows nothing of what they mean to the loop. There is no state of a
random generator: every random choice follows from the seed and the position.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae.storage import ArtifactError, read_json, sha256, write_json
from training.config import NOT_THE_RUN, TrainConfig

STATE, TENSORS = "state.json", "state.safetensors"


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    folder: Path
    state: dict[str, Any]
    """JSON values: step, position and the like."""
    tensors: dict[str, Tensor]
    """Everything else, by name, on the CPU."""


def save(
    out: Path, step: int, config: TrainConfig, state: Mapping[str, Any], tensors: Mapping, keep: int
) -> Path:
    """Write a checkpoint, then delete all but the newest `keep`; returns its folder."""
    folder = out / "checkpoints" / f"step_{step:08d}"
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(stored, unfinished / TENSORS)
    digest = sha256(unfinished / TENSORS)
    content = {**state, "step": step, "config": asdict(config), "sha256": {TENSORS: digest}}
    write_json(unfinished / STATE, content)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    for old in _folders(out)[: -max(1, keep)]:
        if old != folder:
            shutil.rmtree(old)
    return folder


def newest(out: Path, config: TrainConfig) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint of a run, and what was wrong with newer ones.

    ValueError if there is none, or if it belongs to a run with other settings.
    """
    damaged: list[str] = []
    for folder in reversed(_folders(out)):
        try:
            checkpoint = _read(folder)
        except (OSError, ValueError) as error:
            damaged.append(f"{folder} is damaged and was left out: {error}")
            continue
        _check_config(checkpoint, config)
        return checkpoint, damaged
    reasons = " ".join(["", *damaged])
    raise ValueError(
        f"--resume: no checkpoint in {out / 'checkpoints'}.{reasons} Start without --resume, and "
        "with --checkpoint-every N."
    )


def flat_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by name: `optimizer.<parameter>.<what>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{n}.{what}": t for n, slot in state.items() for what, t in slot.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `flat_optimizer` gave, each moment in the memory order of its parameter."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, what = name.split(".")
            like = parameters[int(number)]
            if tensor.shape == like.shape:
                tensor = torch.empty_like(like).copy_(tensor)
            slots.setdefault(int(number), {})[what] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _folders(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step_*"))


def _read(folder: Path) -> Checkpoint:
    state = read_json(folder / STATE)
    path = folder / TENSORS
    found, expected = sha256(path), state["sha256"][TENSORS] if "sha256" in state else "a hash"
    if found != expected:
        raise ArtifactError(path, f"sha256 {found}", f"{expected}", "An older one is tried.")
    return Checkpoint(folder, state, load_file(path))


def _check_config(checkpoint: Checkpoint, config: TrainConfig) -> None:
    """The settings that shape a run must be those of the checkpoint."""
    now = json.loads(json.dumps(asdict(config)))
    then = checkpoint.state.get("config", {})
    for name in now.keys() - NOT_THE_RUN:
        if now[name] != then.get(name):
            flag = name.replace("_", "-")
            raise ValueError(
                f"--resume: --{flag} is {now[name]}, but {checkpoint.folder} was made with "
                f"{then.get(name)}. Give the same options, or train into another --out."
            )
