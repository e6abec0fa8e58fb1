"""What a run leaves behind: artifact, training.json, metrics.json, curves, card, uploads.

Knows when each of them is written, by the main process; what training.json tells of the run and the machine;
and how checkpoints are pushed while training goes on. A failed upload never ends a run. Knows nothing of
steps.
"""

import dataclasses
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sae.hub import push_folder, pushed_files, write_card
from sae.storage import write_sealed
from sae.terminal import n_cores
from training.evaluation.measure import measure, metrics_json
from training.launch import how_launched
from training.loop.checkpoints import writing
from training.loop.config import TrainConfig
from training.loop.monitor import CURVES, LOG, draw_curves, read_log
from training.loop.run import Run
from training.loop.trainer import Trainer

_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "open_clip_torch", "timm")
_ROOT = Path(__file__).resolve().parents[2]
Say = Callable[[str], None]


class Results:
    """Writes what a run has to show, at checkpoints and at the end."""

    def __init__(self, run: Run, source: Any, held_out: Any, command: str) -> None:
        self._run, self._source, self._held_out = run, source, held_out
        self._command, self._n_unreadable = command, 0
        self._uploads = Uploads(run.accelerator.print)

    def checkpoint(self) -> None:
        """Save every SAE's state and artifact; all processes must call it.

        Raises what Run.save raises.
        """
        self._n_unreadable = self._run.n_unreadable()  # all ask, before one may fail to write
        self._run.save()
        if not self._run.accelerator.is_main_process:
            return
        for trainer in self._run.trainers:
            with writing(trainer.out):
                self._training_json(trainer)
                write_card(trainer.out, trainer.config.push_to)
            if self._run.config.push_every and trainer.config.push_to:
                self._uploads.start(trainer.out, trainer.config.push_to, trainer.config.private)

    def finish(self) -> None:
        """Write the artifacts, measure them on held-out images, and push them if asked."""
        run = self._run
        self._n_unreadable = run.n_unreadable()
        if not run.accelerator.is_main_process:
            return
        if self._n_unreadable:
            run.accelerator.print(f"{self._n_unreadable} unreadable images were replaced by others")
        seconds, artifacts = run.elapsed, []
        for trainer in run.trainers:
            artifact = trainer.to_sae(run.where)
            with writing(trainer.out):
                artifact.save_pretrained(trainer.out)
                self._training_json(trainer, seconds)
            artifacts.append(artifact.to(run.device))
        self._draw()
        run.accelerator.print(f"measuring on {self._held_out.name} …")
        self._measure(artifacts)
        self._uploads.close()
        for trainer in run.trainers:
            if trainer.config.push_to:
                run.accelerator.print(
                    push(trainer.out, trainer.config.push_to, trainer.config.private)
                )

    def close(self) -> None:
        """Wait for uploads under way."""
        self._uploads.close()

    def _measure(self, artifacts: list[Any]) -> None:
        run, held_out = self._run, self._held_out
        all_measured = measure(
            artifacts, run.backbone, held_out, image_batch=run.config.image_batch
        )
        for trainer, measured in zip(run.trainers, all_measured, strict=True):
            figures = measured.whole
            metrics = metrics_json(
                measured, data=held_out.name, tokens=run.where.tokens, command=self._command
            )
            with writing(trainer.out):
                write_sealed(trainer.out / "metrics.json", metrics)
                write_card(trainer.out, trainer.config.push_to)
            share = figures.dead_share
            dead = "not measured" if share is None else f"{share:.2%}"
            run.accelerator.print(
                f"held-out: fvu {figures.fvu:.4f}, l0 {figures.l0:.2f}, dead {dead} "
                f"({figures.n_tokens:,} tokens); the artifact is in {trainer.out}"
            )
            if not figures.fvu < 1:
                run.accelerator.print(
                    f"warning: an fvu of {figures.fvu:.3g} is no better than saying the mean activation "
                    f"of every token: {trainer.out} has learned nothing that can be used. Lower --lr "
                    f"(it was {trainer.config.peak_lr:.2g}) or give more --steps."
                )

    def _draw(self) -> None:
        logs = {trainer.out.name: read_log(trainer.out / LOG) for trainer in self._run.trainers}
        for trainer in self._run.trainers:
            with writing(trainer.out):
                draw_curves({trainer.out.name: logs[trainer.out.name]}, trainer.out / CURVES)
        if len(logs) > 1:
            together = self._run.trainers[0].out.parent / CURVES
            with writing(together):
                draw_curves(logs, together)

    def _training_json(self, trainer: Trainer, seconds: float | None = None) -> None:
        run = self._run
        content = training_json(
            trainer.config,
            command=self._command,
            dataset=self._source.name,
            origin=self._origin(),
            n_unreadable=self._n_unreadable,
            n_processes=run.n_processes,
            n_images=run.stream.n_images,
            seconds=run.elapsed if seconds is None else seconds,
            n_steps=run.n_steps,
            scale=trainer.scale,
            launched=how_launched(run.accelerator),
        )
        write_sealed(trainer.out / "training.json", content)

    def _origin(self) -> dict[str, Any]:
        """The images behind the run, and how many of them it holds out."""
        of_store = getattr(self._source, "origin", None)
        held_out = getattr(self._held_out, "numbers", ())
        return of_store or {"data": self._run.config.data, "held_out": len(held_out)}


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
    launched: dict[str, Any],
) -> dict[str, Any]:
    """The content of training.json: how the SAE was made, on what, and with what.

    `origin` says whose images these are and how many of them training held out ("data", "held_out").
    `n_steps` of the config's steps are done; `scale` is what activations were divided by, which is
    folded into the weights; `launched` what Accelerate did.
    """
    options = dataclasses.asdict(config)
    passing = ("out", "push_to", "private", "resume", "overwrite", "accept_changed_data")
    for name in (*passing, "seed", "steps", "sweep"):
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
        "schedule": _schedule(config, n_processes),
        "options": options,
        "versions": _versions(),
        "hardware": _hardware(n_processes),
        "accelerate": launched,
        "wall_time_seconds": round(seconds, 1),
        "commit": _commit(),
        **({"license": licence} if licence else {}),
    }


def _schedule(config: TrainConfig, n_processes: int) -> dict[str, float]:
    return {
        "peak_lr": config.peak_lr,
        "warmup_steps": config.warmup_steps,
        "decay_share": config.decay,
        "dead_after_tokens": config.dead_tokens(config.batch_size * n_processes),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _hardware(n_processes: int) -> dict[str, Any]:
    hardware: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_cores": n_cores(),
        "processes": n_processes,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
    return hardware


def _commit() -> str | None:
    """The repository's commit, marked if files differ from it; None outside a repository."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Push a run's folder; says where it is, or why it failed and how to take it up again."""
    return _push(folder, repo_id, folder, private)


class Uploads:
    """Uploads of checkpoints, one at a time; a checkpoint that comes meanwhile is left out."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._busy: dict[str, Future] = {}

    def start(self, folder: Path, repo_id: str, private: bool = False) -> None:
        """Push `folder` as it is now, in the background."""
        going = self._busy.get(repo_id)
        if going is not None and not going.done():
            return
        try:
            snapshot = _snapshot(folder)
        except OSError as error:
            self._say(f"{folder} was not pushed: {error}")
            return
        self._busy[repo_id] = self._thread.submit(self._upload, snapshot, folder, repo_id, private)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown(wait=True)

    def _upload(self, snapshot: Path, folder: Path, repo_id: str, private: bool) -> None:
        try:
            self._say(_push(snapshot, repo_id, folder, private))
        finally:
            shutil.rmtree(snapshot, ignore_errors=True)


def _push(snapshot: Path, repo_id: str, folder: Path, private: bool) -> str:
    try:
        # None leaves a repository that is there as it is, and what is new public
        return f"pushed to {push_folder(snapshot, repo_id, private=private or None)}"
    except Exception as error:  # whatever a client may raise: the run goes on, and says it
        again = ["patchlens", "publish", "push", str(folder), repo_id]
        again += ["--private"] if private else []
        name = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        return (
            f"{name}{error}\nThe artifact in {folder} is whole. To take the upload up again:\n  "
            f"{shlex.join(again)}"
        )


def _snapshot(folder: Path) -> Path:
    """The artifact's files under a hidden folder beside them.

    They are hard links where the disk has them: a file that is replaced later keeps its old content
    here, and nothing is copied.
    """
    snapshot = Path(tempfile.mkdtemp(prefix=".push-", dir=folder))
    for name in pushed_files(folder):
        target = snapshot / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / name, target)
        except OSError:
            shutil.copyfile(folder / name, target)
    return snapshot
