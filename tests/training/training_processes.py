"""Training runs in processes of their own, quick to start: real signals, real gloo.

A fork server imports the training code once; each process is then a fork of it, with no thread and
no state of the test's process.
"""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from tests.training.training_parts import backbone, config, pictures
from training.loop import checkpoints
from training.loop.run import Run
from training.train import train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [__name__, "matplotlib.backends.backend_agg", "transformers.models.clip.modeling_clip"]
)
PATIENCE = 1800
"""Seconds after which a process hangs: no machine is that slow."""


class Moment(NamedTuple):
    """When a process of a run sends itself a signal."""

    step: int
    place: str = "after the step"
    """Or "within its checkpoint", "before its artifact"."""
    signal: int = signal.SIGKILL
    rank: int = 0


def begin(settings: dict[str, Any], *, world: int = 1, moment: Moment | None = None) -> list[Any]:
    """Start a run of `world` processes; `settings` are those of `training_parts.config`.

    At `moment` one of them signals itself, however fast it is. What it prints goes to `log.<rank>`
    beside `out`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path(settings["out"]).mkdir(parents=True, exist_ok=True)
    made = [
        CONTEXT.Process(target=_train, args=(settings, rank, world, port, moment))
        for rank in range(world)
    ]
    for process in made:
        process.start()
    return made


def end(processes: Sequence[Any]) -> list[int]:
    """Wait for processes; their exit codes (minus the signal that ended one)."""
    try:
        for process in processes:
            process.join(PATIENCE)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()


def train_all(settings: dict[str, Any], *, world: int = 1) -> None:
    """A run from its start to its end, which must go well."""
    codes = end(begin(settings, world=world))
    assert codes == [0] * world, printed(settings["out"])


def printed(out: str | Path, rank: int = 0) -> str:
    """What a process of the run in `out` printed."""
    return Path(f"{out}.log.{rank}").read_text(encoding="utf-8")


def _train(
    settings: dict[str, Any], rank: int, world: int, port: int, moment: Moment | None
) -> None:
    log = os.open(f"{settings['out']}.log.{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    if world > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ |= {name: str(value) for name, value in ranks.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if moment and moment.rank == rank:
        _signal_at(moment)
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == world
    try:
        train(config(**settings), accelerator, backbone(), pictures(), pictures(8), "the command")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    finally:
        accelerator.end_training()


def _signal_at(moment: Moment) -> None:
    """Make this process signal itself at `moment`."""

    def send() -> None:
        os.kill(os.getpid(), moment.signal)

    def before(owner: Any, name: str, is_now: Callable[..., bool]) -> None:
        function = getattr(owner, name)

        def replaced(*given: Any) -> Any:
            if is_now(*given):
                send()
            return function(*given)

        setattr(owner, name, replaced)

    if moment.place == "after the step":
        before(Run, "progress", lambda run, *_: run.n_steps == moment.step)
    elif moment.place == "within its checkpoint":
        before(checkpoints, "_flush", lambda path: path.parent.name == f".step_{moment.step:08d}")
    elif moment.place == "before its artifact":
        before(Run, "_write_artifacts", lambda run: run.n_steps == moment.step)
    else:
        raise ValueError(moment.place)
