"""Train sparse autoencoders on any vision transformer.

    accelerate launch training/train.py --backbone bundled --data world --layer -2 \\
        --arch topk --d-sae 1024 --k 16 --steps 100 --out runs/first

Knows the order of things: open, train, save. How a step works is in `training.loop.run`, what a finished
run leaves behind in `training.loop.results`.
"""

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch
from accelerate import Accelerator

from sae import hub
from sae.backbones import Backbone
from sae.storage import read_sealed
from sae.terminal import INTERRUPTED, command, local_path
from training.data import record
from training.data.record import HELD_OUT, TRAINED_ON
from training.data.sources import open_source
from training.launch import command_line, locked, processes, stop_on_signal
from training.loop import checkpoints
from training.loop.checkpoints import NotSaved
from training.loop.config import TrainConfig
from training.loop.monitor import CURVES, LOG, Monitor, trackers
from training.loop.options import members, parse_config
from training.loop.results import Results
from training.loop.run import Run

OURS: tuple[str, ...] = ("config.json", "checkpoints", "metrics.json", "training.json", "README.md")
OURS += (LOG, CURVES, "exemplars.webp", HELD_OUT, TRAINED_ON)
"""What a run writes into its folder, beside weights."""


@command
def main(argv: list[str]) -> int:
    """Train what the command line says."""
    config = found_anywhere(parse_config(argv))
    with open_processes(config) as accelerator, own_folder(config, accelerator):
        out = Path(config.out)
        if config.resume and is_over(out, config):
            accelerator.print(f"the run in {out} is over; --overwrite trains anew")
            return 0
        before = record.read_record(out) if config.resume and checkpoints.any_in(out) else None
        source, held_out = open_source(
            config.data,
            seed=config.seed,
            n_eval=config.eval_images,
            streaming=config.streaming,
            kept=before.held_out if before else None,
        )
        backbone = Backbone.from_pretrained(
            config.backbone,
            revision=config.backbone_revision,
            device=accelerator.device,
            dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        ).at(config.layer)
        if config.overwrite and accelerator.is_main_process:
            clear_folder(out)
        accelerator.wait_for_everyone()
        line = command_line("training/train.py", argv)
        done = train(config, accelerator, backbone, source, held_out, line)
    return 0 if done else INTERRUPTED


def is_over(out: Path, config: TrainConfig) -> bool:
    """Whether a run of as many steps has ended in `out` and left no checkpoint to go on from.

    ValueError if it was one of another number of steps.
    """
    done = [path.parent for path in (*out.glob("metrics.json"), *out.glob("*/metrics.json"))]
    if not done or checkpoints.any_in(out):
        return False
    steps = read_sealed(done[0] / "training.json").get("steps")
    if steps != config.steps:
        raise ValueError(
            f"--resume: the run in {done[0]} ended after {steps} steps and kept no checkpoint, so it "
            f"cannot go on to {config.steps}; --overwrite trains anew, another --out keeps it."
        )
    return True


def found_anywhere(config: TrainConfig) -> TrainConfig:
    """The same run with its folders as absolute paths, for whoever opens its artifact from elsewhere."""
    data, backbone = local_path(config.data), local_path(config.backbone, hub.NAMES)
    return dataclasses.replace(config, data=data, backbone=backbone)


@contextlib.contextmanager
def own_folder(config: TrainConfig, accelerator: Accelerator) -> Iterator[None]:
    """--out for this run alone; ValueError if another run uses it, or lies there."""
    check_folder(Path(config.out), config)
    with locked(Path(config.out)) if accelerator.is_main_process else contextlib.nullcontext():
        yield


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
    given = config.batch_size
    saes = members(config, backbone.d_model)
    if config.resume:
        config = checkpoints.shared_anew(Path(saes[0].out), config, accelerator.num_processes)
        saes = members(config, backbone.d_model)
    for member in saes:
        check_folder(Path(member.out), config)
        Path(member.out).mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()  # nobody writes into a folder that another still looks at
    if accelerator.is_main_process:
        keep_images(config, saes, source, held_out)
    accelerator.wait_for_everyone()
    with stop_on_signal() as stop:
        run = Run(config, accelerator, backbone, source, stop, saes)
        run.given_batch_size = given
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


def keep_images(config: TrainConfig, saes: list[TrainConfig], source: Any, held_out: Any) -> None:
    """Record which images the run trains on, and beside every SAE which it holds out.

    ValueError if they are not those that a resumed run began with.
    """
    out, now = Path(config.out), record.record_of(source, held_out)
    before = record.read_record(out) if config.resume and checkpoints.any_in(out) else None
    if said := record.keep(out, before, now, accept=config.accept_changed_data):
        print(said)  # noqa: T201
    for member in saes:
        if now.held_out and member.out != config.out:
            record.write(Path(member.out) / HELD_OUT, now.held_out)


def begin(run: Run) -> bool:
    """Start anew, or go on from the newest checkpoint; False if it was stopped meanwhile."""
    say = run.accelerator.print
    for trainer in run.trainers:
        say(
            f"{trainer.config.arch} SAE {run.backbone.d_model} → {trainer.config.d_sae} on layer "
            f"{run.layer} of {run.backbone.id} ({run.device.type}, processes: {run.n_processes})"
        )
    if not run.config.resume or not checkpoints.any_in(Path(run.config.out)):
        if run.config.resume:
            say(f"--resume: no checkpoint in {run.config.out} yet; beginning at step 0")
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
