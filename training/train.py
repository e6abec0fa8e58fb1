"""Train sparse autoencoders on any vision transformer.

    accelerate launch training/train.py --backbone bundled --data world --layer -2 \\
        --arch topk --d-sae 1024 --k 16 --steps 100 --out runs/first

Knows the order of things: open, train, save. How a step works is in `training.loop.run`, what a finished
run leaves behind in `training.loop.results`.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from accelerate import Accelerator

from sae.backbones import Backbone
from training.data.sources import open_source
from training.launch import command, command_line, processes, stop_on_signal
from training.loop.checkpoints import NotSaved
from training.loop.config import TrainConfig
from training.loop.monitor import CURVES, LOG, Monitor, trackers
from training.loop.options import members, parse_config
from training.loop.results import Results
from training.loop.run import Run

OURS: tuple[str, ...] = ("config.json", "checkpoints", "metrics.json", "training.json", "README.md")
OURS += (LOG, CURVES, "exemplars.webp")
"""What a run writes into its folder, beside weights."""


@command
def main(argv: list[str]) -> None:
    """Train what the command line says."""
    config = parse_config(argv)
    with open_processes(config) as accelerator:
        check_folder(Path(config.out), config)
        source, held_out = open_source(
            config.data, seed=config.seed, n_eval=config.eval_images, streaming=config.streaming
        )
        backbone = Backbone.from_pretrained(
            config.backbone,
            revision=config.backbone_revision,
            device=accelerator.device,
            dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        )
        if config.overwrite and accelerator.is_main_process:
            clear_folder(Path(config.out))
        accelerator.wait_for_everyone()
        train(
            config, accelerator, backbone, source, held_out, command_line("training/train.py", argv)
        )


@contextlib.contextmanager
def open_processes(config: TrainConfig) -> Iterator[Accelerator]:
    """The processes of this run, their trackers and threads; ValueError if a tracker is missing."""
    options: dict[str, Any] = {"log_with": trackers(config) or None, "project_dir": config.out}
    with processes(threads=config.threads, **options) as accelerator:
        if accelerator.device.type != "cpu":
            torch.set_float32_matmul_precision("highest" if config.precision == "fp32" else "high")
        yield accelerator


def train(
    config: TrainConfig,
    accelerator: Accelerator,
    backbone: Backbone,
    source: Any,
    held_out: Any,
    command: str,
) -> bool:
    """Train, then write the artifact; False if it was stopped before the end."""
    saes = members(config, backbone.d_model)
    for member in saes:
        check_folder(Path(member.out), config)
        Path(member.out).mkdir(parents=True, exist_ok=True)
    with stop_on_signal() as stop:
        run = Run(config, accelerator, backbone, source, stop, saes)
        results = Results(run, source, held_out, command)
        try:
            if begin(run):
                steps(run, results)
            if run.n_steps < config.steps:
                say_how_to_resume(run, results)
                return False
            results.finish()
        finally:
            run.stream.close()
            results.close()
    return True


def begin(run: Run) -> bool:
    """Start anew, or go on from the newest checkpoint; False if it was stopped meanwhile."""
    say = run.accelerator.print
    for trainer in run.trainers:
        say(
            f"{trainer.config.arch} SAE {run.backbone.d_model} → {trainer.config.d_sae} on layer "
            f"{run.layer} of {run.backbone.id} ({run.device.type}, processes: {run.n_processes})"
        )
    if not run.config.resume:
        say("filling the first buffer …")
        return run.start()
    for message in run.restore():
        say(message)
    say(f"resumed at step {run.n_steps}")
    return True


def steps(run: Run, results: Results) -> None:
    """The training loop: until the last step, or until all processes agree to stop."""
    config = run.config
    if run.n_steps >= config.steps:
        return
    with Monitor(run) as monitor:
        for x in run.batches():
            outs = run.step(x)
            done = run.n_steps >= config.steps
            monitor.step()
            if run.n_steps % config.log_every == 0 or done:
                monitor.show(run.progress(x, outs))
            if config.checkpoint_every and run.n_steps % config.checkpoint_every == 0:
                try:
                    results.checkpoint()
                except NotSaved as error:
                    monitor.say(f"warning: {error} Training goes on.")
            if done:
                return


def say_how_to_resume(run: Run, results: Results) -> None:
    """Save a checkpoint if there is anything to save, and say how to go on."""
    say = run.accelerator.print
    if run.n_steps == 0:
        return say("\nstopped before the first step; nothing to save")
    results.checkpoint()
    run.accelerator.wait_for_everyone()
    return say(
        f"\nstopped after step {run.n_steps}; saved a checkpoint in {run.config.out}. "
        "Go on with the same command and --resume."
    )


def check_folder(out: Path, config: TrainConfig) -> None:
    """Refuse to write over an earlier run, or among files of something else, by accident."""
    if config.resume or config.overwrite:
        return
    used = [name for name in OURS if (out / name).exists()]
    if used:
        raise ValueError(
            f"--out {out} already holds {', '.join(used)}. Give --resume to go on, --overwrite "
            "to start anew, or another --out."
        )


def clear_folder(out: Path) -> None:
    """Remove an earlier run's files, so that nothing of it is resumed or shown with the new SAE."""
    for name in ("checkpoints", "concepts"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in OURS:
        if (out / name).is_file():
            (out / name).unlink()


if __name__ == "__main__":
    sys.exit(main())
