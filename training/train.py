"""Train a sparse autoencoder on any vision transformer.

    accelerate launch training/train.py --backbone bundled --data world --layer -2 \\
        --arch topk --d-sae 1024 --k 16 --steps 100 --out runs/first

Knows the order of things: open, train, measure, save, push. How a step works is in `training.run`.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # `accelerate launch training/train.py` puts this file's folder first on the path; put the
    # repository's root there instead, so that a bare clone works without an install.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from accelerate import Accelerator
from tqdm import tqdm

from sae.backbones import Backbone
from sae.hub import write_card
from sae.storage import write_json
from training import report
from training.activations import Stopped
from training.config import TrainConfig, parse_config
from training.evaluate import evaluate, metrics_json
from training.interrupt import stop_on_signal
from training.run import Progress, Run
from training.sources import ImageSource, open_source

LOG_EVERY = 10
"""Steps between two lines of progress.jsonl."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (default: this process's)."""
    words = list(sys.argv[1:] if argv is None else argv)
    config = parse_config(words)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if int(os.environ.get("WORLD_SIZE", "1")) != accelerator.num_processes:
        sys.exit(
            f"error: {os.environ['WORLD_SIZE']} processes were launched, but they do not know of "
            "each other; use accelerate launch --multi_gpu --num_processes N."
        )
    if accelerator.device.type == "cpu":
        # accelerate launch sets OMP_NUM_THREADS=1 unless it is told otherwise
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // here))
    try:
        check_folder(config)
        source, held_out = open_source(config.data, seed=config.seed, n_eval=config.eval_images)
        backbone = Backbone.from_pretrained(
            config.backbone, revision=config.backbone_revision, device=accelerator.device
        )
        command = report.command_line(words)
        if config.overwrite and accelerator.is_main_process:
            clear_folder(Path(config.out))
        accelerator.wait_for_everyone()
        train(config, accelerator, backbone, source, held_out, command)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    finally:
        accelerator.end_training()


def train(
    config: TrainConfig,
    accelerator: Accelerator,
    backbone: Backbone,
    source: ImageSource,
    held_out: ImageSource,
    command: str,
) -> bool:
    """Train, then write the artifact; False if it was stopped before the end."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    Path(config.out).mkdir(parents=True, exist_ok=True)
    with stop_on_signal() as stop:
        run = Run(config, accelerator, backbone, source, stop)
        try:
            begin(run)
            steps(run)
        except Stopped:
            stop.requested = True
        if stop.requested and run.n_steps < config.steps:
            say_how_to_resume(run)
            return False
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        finish(run, source, held_out, command)
    return True


def begin(run: Run) -> None:
    """Start anew, or go on from the newest checkpoint."""
    say = run.accelerator.print
    say(
        f"{run.config.arch} SAE {run.backbone.d_model} → {run.config.d_sae} on layer {run.layer} "
        f"of {run.backbone.id} ({run.device.type}, processes: {run.n_processes})"
    )
    if not run.config.resume:
        say("filling the first buffer …")
        return run.start()
    for message in run.restore():
        say(message)
    return say(f"resumed at step {run.n_steps}")


def steps(run: Run) -> None:
    """The training loop, with a progress bar and progress.jsonl on the main process."""
    config, stop = run.config, run.stop
    quiet = not run.accelerator.is_main_process
    log = Path(config.out) / "progress.jsonl"
    with tqdm(
        total=config.steps, initial=run.n_steps, unit="step", disable=quiet, mininterval=0.5
    ) as bar:
        if run.n_steps >= config.steps:
            return
        for x in run.stream:
            out = run.step(x)
            bar.update()
            if run.n_steps % LOG_EVERY == 0 or run.n_steps == config.steps:
                found = run.progress(x, out)
                bar.set_postfix(
                    fvu=f"{found.fvu:.3f}", l0=f"{found.l0:.1f}", dead=f"{found.dead_fraction:.1%}"
                )
                if not quiet:
                    append(log, run, found)
            done = run.n_steps >= config.steps
            if config.checkpoint_every and run.n_steps % config.checkpoint_every == 0:
                run.save()
            if done or stop.requested:
                return


def append(log: Path, run: Run, found: Progress) -> None:
    """Add a line to progress.jsonl."""
    line = {"step": run.n_steps, **found._asdict(), "seconds": round(run.elapsed, 2)}
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def finish(run: Run, source: ImageSource, held_out: ImageSource, command: str) -> None:
    """Measure on held-out images, write the artifact, and push it if asked."""
    config, out, say = run.config, Path(run.config.out), run.accelerator.print
    seconds = run.elapsed
    sae = run.to_sae()
    sae.save_pretrained(out)
    say(f"measuring on {held_out.name} …")
    found, n_images = evaluate(
        sae.to(run.device), run.backbone, held_out, image_batch=config.image_batch
    )
    metrics = metrics_json(
        found, n_images=n_images, data=held_out.name, tokens=config.tokens, command=command
    )
    write_json(out / "metrics.json", metrics)
    training = report.training_json(
        config,
        command=command,
        dataset=source.name,
        n_processes=run.n_processes,
        n_images=run.stream.n_images * run.n_processes,
        seconds=seconds,
    )
    write_json(out / "training.json", training)
    write_card(out, config.push_to)
    say(
        f"held-out: fvu {found.fvu:.4f}, l0 {found.l0:.2f}, dead {found.dead_fraction:.2%} "
        f"({found.n_tokens:,} tokens); the artifact is in {out}"
    )
    if config.push_to:
        say(report.push(out, config.push_to))


def say_how_to_resume(run: Run) -> None:
    """Save a checkpoint if there is anything to save, and say how to go on."""
    if run.n_steps == 0:
        return run.accelerator.print("\nstopped before the first step; nothing to save")
    folder = run.save()
    return run.accelerator.print(
        f"\nstopped after step {run.n_steps}; saved {folder}. "
        "Go on with the same command and --resume."
    )


def check_folder(config: TrainConfig) -> None:
    """Refuse to write over an earlier run by accident."""
    out = Path(config.out)
    used = [name for name in ("config.json", "checkpoints") if (out / name).exists()]
    if used and not config.resume and not config.overwrite:
        raise ValueError(
            f"--out {out} already holds {' and '.join(used)}. Give --resume to go on, --overwrite "
            "to start anew, or another --out."
        )


def clear_folder(out: Path) -> None:
    """Remove an earlier run's files, so that nothing of it is resumed or shown with the new SAE."""
    for name in ("checkpoints", "concepts"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("config.json", "progress.jsonl"):
        (out / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
