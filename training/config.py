"""Everything a training run can be told, once: the dataclass is the command line.

Knows names, defaults and help texts, and rejects values that cannot work before anything is loaded.
Knows nothing of data, models or the loop.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sae.config import ARCHITECTURES, TOKEN_POLICIES

DESCRIPTION = """Train a sparse autoencoder on the activations of a vision transformer.

  accelerate launch training/train.py --backbone bundled --data world --layer -2 \\
      --arch topk --d-sae 1024 --k 16 --steps 100 --out runs/first

The run's folder becomes an artifact that SparseAutoencoder.from_pretrained opens.
Ctrl-C saves a checkpoint; the same command with --resume goes on from it."""


def _option(default: Any, text: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": text, **extra})


def _required(text: str, **extra: Any) -> Any:
    return field(metadata={"help": text, **extra})


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Field names are the options, with `-` for `_`."""

    backbone: str = _required("'bundled', a folder or a Hub id of a vision transformer")
    data: str = _required(
        "'world' (the emoji world), a folder of images, a folder written by datasets' "
        "save_to_disk, or hf:user/name[:split]"
    )
    out: str = _required("folder for the artifact, its metrics and the checkpoints")
    layer: int = _option(-2, "layer to read, counted from 0; -1 is the last")
    tokens: str = _option("all", "which positions to train on", choices=TOKEN_POLICIES)
    arch: str = _option("topk", "activation function of the SAE", choices=ARCHITECTURES)
    d_sae: int = _option(2048, "number of latents")
    k: int = _option(16, "active latents per token (jumprelu: the L0 aimed at; relu: not used)")
    groups: tuple[float, ...] = _option(
        (0.0625, 0.125, 0.25, 0.5625), "matryoshka: shares of the nested groups", nargs="+"
    )
    l1: float = _option(0.05, "relu: weight of the L1 penalty")
    steps: int = _option(2000, "optimiser steps")
    batch_size: int = _option(4096, "tokens per step and process")
    lr: float | None = _option(
        None,
        "peak learning rate (default: 0.0256 / sqrt(d_sae), up to 4 times that in runs "
        "of less than 10,000 steps)",
    )
    warmup: int | None = _option(None, "steps of warm-up (default: 1000, at most steps / 10)")
    decay: float = _option(0.2, "share of the steps, at the end, over which the rate falls to 0")
    aux: float = _option(1 / 32, "weight of the loss that revives dead latents (AuxK)")
    dead_after: int | None = _option(
        None, "tokens without firing after which a latent is dead (default: 10M, at most 1/10)"
    )
    seed: int = _option(0, "seed of weights, image order and shuffling")
    images: int | None = _option(None, "use at most this many different training images")
    eval_images: int = _option(512, "held-out images to measure on (at most 5 %% of a folder)")
    image_batch: int = _option(32, "images per forward of the backbone")
    buffer: int = _option(16, "size of the shuffle buffer, in batches")
    checkpoint_every: int = _option(0, "steps between checkpoints (0: only on Ctrl-C)")
    keep_checkpoints: int = _option(2, "how many checkpoints to keep")
    resume: bool = _option(False, "go on from the newest checkpoint in --out")
    overwrite: bool = _option(False, "train anew into a folder that already holds a run")
    push_to: str | None = _option(None, "Hub id to push the finished artifact to")
    threads: int | None = _option(None, "CPU threads (default: all cores, shared by the processes)")
    backbone_revision: str | None = _option(None, "branch, tag or commit of the backbone")

    def __post_init__(self) -> None:
        for name in ("d_sae", "k", "steps", "batch_size", "eval_images", "image_batch", "buffer"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{_flag(name)} must be at least 1, got {getattr(self, name)}.")
        for name in ("warmup", "dead_after", "checkpoint_every", "aux", "l1", "threads"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"--{_flag(name)} must not be negative, got {value}.")
        if self.k > self.d_sae:
            raise ValueError(f"--k {self.k} is larger than --d-sae {self.d_sae}; lower it.")
        if self.images is not None and self.images < 1:
            raise ValueError(f"--images must be at least 1, got {self.images}.")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"--lr must be positive, got {self.lr}.")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"--decay is a share between 0 and 1, got {self.decay}.")
        if self.arch == "matryoshka":
            self._check_groups()
        if self.resume and self.overwrite:
            raise ValueError("--resume and --overwrite contradict each other; give one of them.")

    def _check_groups(self) -> None:
        sizes = [int(share * self.d_sae) for share in self.groups[:-1]]
        if abs(sum(self.groups) - 1) > 1e-6 or min([*sizes, self.d_sae - sum(sizes)]) < 1:
            raise ValueError(
                f"--groups must be shares that sum to 1 and give each group a latent, "
                f"got {self.groups} of {self.d_sae}."
            )

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        if self.lr is not None:
            return self.lr
        haste = min(4.0, max(1.0, (10_000 / self.steps) ** 0.5))
        return haste * 0.0256 / self.d_sae**0.5

    @property
    def warmup_steps(self) -> int:
        """Steps over which the learning rate rises from 0."""
        return min(1000, self.steps // 10) if self.warmup is None else self.warmup

    def learning_rate(self, step: int) -> float:
        """The rate of step number `step` (from 0): linear warm-up, constant, linear decay to 0."""
        rise = min(1.0, (step + 1) / (self.warmup_steps + 1))
        fall = min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))
        return self.peak_lr * rise * fall


NOT_THE_RUN = frozenset(
    {"out", "checkpoint_every", "keep_checkpoints", "resume", "overwrite", "push_to", "threads"}
)
"""Options that may differ between a run and its resumption."""


def parse_config(argv: Sequence[str] | None = None) -> TrainConfig:
    """The command line as a config; errors leave with argparse's message and status 2."""
    parser = argparse.ArgumentParser(
        prog="accelerate launch training/train.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option in dataclasses.fields(TrainConfig):
        parser.add_argument(f"--{_flag(option.name)}", **_argument(option))
    options = vars(parser.parse_args(argv))
    try:
        return TrainConfig(**{**options, "groups": tuple(options["groups"])})
    except ValueError as error:
        parser.error(str(error))


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _argument(option: dataclasses.Field) -> dict[str, Any]:
    """argparse's keywords for a field of TrainConfig."""
    arguments: dict[str, Any] = dict(option.metadata)
    if option.type is bool:
        return {**arguments, "action": "store_true"}
    if option.default is dataclasses.MISSING:
        return {**arguments, "required": True, "metavar": option.name.upper()}
    arguments["default"] = option.default
    if "nargs" in arguments:
        return {**arguments, "type": float, "metavar": "SHARE"}
    if option.default is not None:
        arguments["help"] += " (default: %(default)s)"
    kinds = {int: int, int | None: int, float: float, float | None: float}
    arguments["type"] = kinds.get(option.type, str)
    if "choices" not in arguments:
        arguments["metavar"] = {int: "N", float: "X"}.get(arguments["type"], "NAME")
    return arguments
