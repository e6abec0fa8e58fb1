"""What a run tells about itself in training.json: the command, the options, the machine.

Knows the machine, the versions and the commit. Knows nothing of the loop.
"""

import dataclasses
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from training.loop.config import TrainConfig

_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "open_clip_torch", "timm")
_ROOT = Path(__file__).resolve().parents[2]


def command_line(argv: Sequence[str]) -> str:
    """The command that makes this run again."""
    kept = [word for word in argv if word not in ("--resume", "--overwrite")]
    return shlex.join(["accelerate", "launch", "training/train.py", *kept])


def training_json(
    config: TrainConfig,
    *,
    command: str,
    dataset: str,
    origin: dict[str, Any],
    n_processes: int,
    n_images: int,
    n_unreadable: int,
    seconds: float,
    n_steps: int,
    scale: float,
) -> dict[str, Any]:
    """The content of training.json: how the SAE was made, on what, and with what.

    `origin` says whose images these are and how many of them training held out ("data", "held_out").
    `n_steps` of the config's steps are done; `scale` is what activations were divided by, which is
    folded into the weights.
    """
    options = dataclasses.asdict(config)
    for name in ("out", "push_to", "private", "resume", "overwrite", "seed", "steps", "sweep"):
        del options[name]
    licence = options.pop("license")
    return {
        "command": command,
        "dataset": dataset,
        "origin": origin,
        "images": n_images,
        "unreadable_images": n_unreadable,
        "tokens": n_steps * config.batch_size * n_processes,
        "steps": n_steps,
        "steps_planned": config.steps,
        "seed": config.seed,
        "recipe": config.recipe,
        "activation_scale": scale,
        "schedule": {
            "peak_lr": config.peak_lr,
            "warmup_steps": config.warmup_steps,
            "decay_share": config.decay,
            "dead_after_tokens": config.dead_tokens(config.batch_size * n_processes),
        },
        "options": options,
        "versions": _versions(),
        "hardware": _hardware(n_processes),
        "wall_time_seconds": round(seconds, 1),
        "commit": _commit(),
        **({"license": licence} if licence else {}),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _hardware(n_processes: int) -> dict[str, Any]:
    hardware: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_cores": os.cpu_count(),
        "processes": n_processes,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
    return hardware


def _commit() -> str | None:
    """The repository's commit, marked if files differ from it; None outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
