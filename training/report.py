"""What a finished run tells about itself: training.json, the command, the card, the push.

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

from sae.hub import HubError, push_folder
from training.config import TrainConfig

_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "open_clip_torch", "timm")
_ROOT = Path(__file__).resolve().parents[1]


def command_line(argv: Sequence[str]) -> str:
    """The command that makes this run again."""
    kept = [word for word in argv if word not in ("--resume", "--overwrite")]
    return shlex.join(["accelerate", "launch", "training/train.py", *kept])


def training_json(
    config: TrainConfig,
    *,
    command: str,
    dataset: str,
    n_processes: int,
    n_images: int,
    seconds: float,
) -> dict[str, Any]:
    """The content of training.json: how the SAE was made, on what, and with what."""
    recipe = dataclasses.asdict(config)
    for name in ("out", "data", "push_to", "resume", "overwrite", "seed", "steps"):
        del recipe[name]
    return {
        "command": command,
        "dataset": dataset,
        "images": n_images,
        "tokens": config.steps * config.batch_size * n_processes,
        "steps": config.steps,
        "seed": config.seed,
        "schedule": {
            "peak_lr": config.peak_lr,
            "warmup_steps": config.warmup_steps,
            "decay_share": config.decay,
        },
        "options": recipe,
        "versions": _versions(),
        "hardware": _hardware(n_processes),
        "wall_time_seconds": round(seconds, 1),
        "commit": _commit(),
    }


def push(folder: Path, repo_id: str) -> str:
    """Push a finished run; says where it is, or why it failed and how to try again."""
    try:
        return f"pushed to {push_folder(folder, repo_id)}"
    except HubError as error:
        again = shlex.join(
            ["hf", "upload", repo_id, str(folder), ".", "--exclude", "checkpoints/*"]
        )
        return f"{error}\nThe artifact in {folder} is whole. To try again:\n  {again}"


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
