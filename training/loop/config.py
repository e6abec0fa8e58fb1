"""Everything a training run can be told, once: the dataclass is the command line.

Knows names, defaults and help texts, and rejects values that cannot work before anything is loaded.
Knows nothing of data, models or the loop.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from sae.architectures import ARCHITECTURES, architecture
from sae.backbones.tokens import n_random
from sae.images import MAX_UNREADABLE

INITS = ("tied", "uniform", "independent")
CENTRES = ("median", "batch_median", "image_median", "mean", "zero")
SCALES, LOSSES = ("spread", "norm", "none"), ("plain", "patchsae")
PRECISIONS = ("auto", "fp32", "bf16")


AT_LEAST_1 = (
    *("d_sae", "expansion", "k", "steps", "batch_size", "images", "eval_images", "image_batch"),
    *("buffer", "shards", "log_every", "keep_checkpoints"),
)
NOT_NEGATIVE = (
    *("warmup", "dead_after", "dead_steps", "checkpoint_every", "aux", "l1", "threads", "mse_cls"),
    *("clip", "threshold_start", "workers", "max_unreadable"),
)


def _option(default: Any, text: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": text, **extra})


def _required(text: str, **extra: Any) -> Any:
    return field(metadata={"help": text, **extra})


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Field names are the options, with `-` for `_`."""

    backbone: str = _required("'bundled', a folder or a Hub id of a vision transformer or CNN")
    data: str = _required(
        "'world' (the emoji world), a folder of images, .tar shards (a folder or a pattern such as "
        "a-{000..012}.tar), hf:user/name[:split], a folder written by datasets' save_to_disk, or a "
        "store written by patchlens extract"
    )
    out: str = _required("folder for the artifact, its metrics and the checkpoints")
    recipe: str | None = _option(
        None, "a paper's whole recipe; options that are given win over it, training.json has all"
    )
    layer: int = _option(-2, "layer to read, counted from 0; -1 is the last")
    tokens: str = _option(
        "all", "positions to train on: all, patches, cls, or random:N different ones of each image"
    )
    arch: str = _option("topk", "activation function of the SAE", choices=ARCHITECTURES)
    d_sae: int = _option(2048, "number of latents")
    expansion: int | None = _option(
        None, "number of latents, as a multiple of the backbone's width"
    )
    k: int = _option(16, "active latents per token (jumprelu: the L0 aimed at; relu: not used)")
    groups: tuple[float, ...] = _option(
        (0.0625, 0.125, 0.25, 0.5625), "matryoshka: shares of the nested groups", nargs="+"
    )
    l1: float = _option(0.05, "relu: weight of the L1 penalty")
    loss: str = _option(
        "plain", "relu: squared error, or PatchSAE's, divided by each token's norm", choices=LOSSES
    )
    mse_cls: float = _option(1.0, "relu: weight of the CLS token's error")
    ghost: bool = _option(False, "relu: revive dead latents by ghost gradients")
    init: str = _option(
        "tied",
        "W_enc starts as W_dec transposed (uniform: with rows of uniform numbers), or by itself",
        choices=INITS,
    )
    b_dec: str = _option(
        "median",
        "where b_dec starts: geometric median of the first tokens, of the first batch alone, of its "
        "whole images, mean or zero",
        choices=CENTRES,
    )
    scale: str = _option(
        "spread",
        "activations are divided by their root mean square distance from b_dec, by their root "
        "mean square norm, or not",
        choices=SCALES,
    )
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
    dead_steps: int | None = _option(None, "the same in steps, in place of --dead-after")
    clip: float = _option(1.0, "norm to which gradients are scaled down (0: never)")
    threshold_start: int | None = _option(
        None, "batch_topk, matryoshka: steps before the threshold (default: 1000, at most half)"
    )
    threshold_decay: float | None = _option(
        None, "memory of the threshold's average (default: 0.999, less in short runs)"
    )
    select_dtype: str = _option(
        "float32",
        "topk family: bfloat16 chooses the latents by a bfloat16 product; their values stay exact",
        choices=("float32", "bfloat16"),
    )
    precision: str = _option(
        "auto",
        "auto: TF32 where the GPU has it; fp32: never; bf16: backbone and dense losses in bfloat16",
        choices=PRECISIONS,
    )
    seed: int = _option(0, "seed of weights, image order and shuffling")
    images: int | None = _option(None, "use at most this many different training images")
    eval_images: int = _option(512, "held-out images to measure on (at most 5 %% of a folder)")
    image_batch: int = _option(32, "images per forward of the backbone")
    buffer: int = _option(16, "size of the shuffle buffer, in batches")
    shards: int | None = _option(
        None,
        "parts of the stream that the processes share (default: 8, or the next multiple of their "
        "number); runs with equally many see the same batches, whatever the number of processes",
    )
    workers: int | None = _option(
        None,
        "processes that open images (0: a thread of this one; default: all cores but one, up to 8, "
        "for each GPU; on a CPU one for every 8 cores)",
    )
    streaming: bool = _option(
        False, "read a Hugging Face dataset row by row in its order, without downloading it whole"
    )
    max_unreadable: float = _option(
        MAX_UNREADABLE, "share of images that may be unreadable (they are replaced); 10 always may"
    )
    checkpoint_every: int = _option(0, "steps between checkpoints (0: only on Ctrl-C)")
    log_every: int = _option(10, "steps between two lines of progress.jsonl")
    tensorboard: bool = _option(False, "log to TensorBoard too, in --out")
    trackio: bool = _option(False, "log to trackio too")
    sweep: str | None = _option(
        None,
        "several SAEs from one stream, each in its own folder of --out: 'd_sae=1024,2048;k=8,16', "
        "or a JSON or TOML file of such lists or of a list of runs",
    )
    keep_checkpoints: int = _option(2, "how many checkpoints to keep")
    resume: bool = _option(False, "go on from the newest checkpoint in --out")
    accept_changed_data: bool = _option(
        False, "--resume although images of --data came, went or were replaced since"
    )
    overwrite: bool = _option(False, "train anew into a folder that already holds a run")
    push_to: str | None = _option(None, "Hub id to push the finished artifact to")
    push_every: bool = _option(False, "push at every checkpoint too")
    private: bool = _option(False, "--push-to makes a private repository")
    license: str | None = _option(None, "licence of the SAE, for its card, such as mit")
    threads: int | None = _option(None, "CPU threads (default: all cores, shared by the processes)")
    backbone_revision: str | None = _option(None, "branch, tag or commit of the backbone")

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            choices, value = option.metadata.get("choices"), getattr(self, option.name)
            if choices and value not in choices:
                raise ValueError(
                    f"--{flag(option.name)} is one of {', '.join(choices)}; got {value!r}."
                )
        for name in AT_LEAST_1:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{flag(name)} must be at least 1, got {value}.")
        for name in NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"--{flag(name)} must not be negative, got {value}.")
        n_random(self.tokens)
        if self.expansion is None and self.k > self.d_sae:
            raise ValueError(f"--k {self.k} is larger than --d-sae {self.d_sae}; lower it.")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"--lr must be positive, got {self.lr}.")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"--decay is a share between 0 and 1, got {self.decay}.")
        if self.threshold_decay is not None and not 0 <= self.threshold_decay < 1:
            raise ValueError(f"--threshold-decay is below 1, got {self.threshold_decay}.")
        if architecture(self.arch).groups and self.expansion is None:
            self._check_groups()
        if self.push_every and not self.push_to:
            raise ValueError("--push-every needs a place: give --push-to user/name too.")
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
        haste = 1.0 if self.recipe else min(4.0, max(1.0, (10_000 / self.steps) ** 0.5))
        return haste * 0.0256 / self.d_sae**0.5

    @property
    def warmup_steps(self) -> int:
        """Steps over which the learning rate rises from 0."""
        return min(1000, self.steps // 10) if self.warmup is None else self.warmup

    def for_width(self, d_model: int) -> "TrainConfig":
        """The same run with --expansion turned into a number of latents."""
        if self.expansion is None:
            return self
        return dataclasses.replace(self, d_sae=self.expansion * d_model, expansion=None)

    def dead_tokens(self, batch: int) -> int:
        """Tokens without firing after which a latent is dead, at `batch` tokens a step in all.

        --dead-steps n means: silent for more than n steps, as PatchSAE counts.
        """
        if self.dead_steps is not None:
            return (self.dead_steps + 1) * batch
        return self.dead_after or max(1, min(10_000_000, self.steps * batch // 10))

    def threshold_memory(self, step: int) -> float | None:
        """How much of the threshold's average survives step `step` (from 0); None before it starts.

        Pach et al.: 0.999 after step 1000. Runs of less than 10,000 steps start and forget sooner.
        """
        start = self.threshold_start
        if step <= (min(1000, self.steps // 2) - 1 if start is None else start):
            return None
        short = 1 - 1 / min(1000, max(1, self.steps // 10))
        return short if self.threshold_decay is None else self.threshold_decay

    def learning_rate(self, step: int) -> float:
        """The rate of step number `step` (from 0): linear warm-up, constant, linear decay to 0."""
        rise = min(1.0, (step + 1) / (self.warmup_steps + 1))
        fall = min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))
        return self.peak_lr * rise * fall


NOT_THE_RUN = frozenset(
    {"out", "checkpoint_every", "keep_checkpoints", "resume", "overwrite", "push_to", "push_every"}
    | {"threads", "workers", "max_unreadable", "log_every", "tensorboard", "trackio", "sweep"}
    | {"private", "license", "accept_changed_data"}
)
"""Options that may differ between a run and its resumption."""


def flag(name: str) -> str:
    """The option of a field: d_sae is --d-sae."""
    return name.replace("_", "-")
