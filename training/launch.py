"""Starting a command of training: its processes and threads, and the signals that stop it.

A command is a module with a `main(argv)`, decorated with `sae.terminal.command`. The same
module runs as `python training/x.py`, `accelerate launch training/x.py`, `python -m training.x` and, where
the package is installed, through its entry point. Started by its path, a module has nothing but its own
folder on the import path, so each begins with the one line that cannot be imported:

    if not __package__:
        sys.path[0] = str(Path(__file__).resolve().parents[1])

Knows Accelerate, signals and locks. Knows nothing of what is run.
"""

import contextlib
import errno
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from sae.terminal import n_cores

if TYPE_CHECKING:
    from accelerate import Accelerator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

GRACE_SECONDS = 5.0
"""Signals that follow the first within this time are part of it: launchers pass on to their workers
what a terminal has already sent to all of them."""


PINNED = {
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    "ACCELERATE_DYNAMO_BACKEND": "no",
}
"""Settings of Accelerate that would change numbers: the commands' own options decide them."""
REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
ROOM = 1 << 20
"""Bytes that a folder must have room for before anything begins."""


@contextlib.contextmanager
def processes(
    *, threads: int | None = None, cpu: bool = False, **options: Any
) -> "Iterator[Accelerator]":
    """This run's processes and the CPU's threads; `options` are Accelerator's. Closed at the end.

    `threads`: CPU threads of this process (default: all cores, shared by the machine's processes).
    What else the user's `accelerate config` or environment asks for does not reach the run: PINNED
    holds, and what was put aside is said. ValueError for what would change the run as a whole, and if
    the launcher's processes do not know of each other.
    """
    from accelerate import Accelerator

    _pin(os.environ)
    accelerator = Accelerator(
        cpu=cpu or not torch.cuda.is_available(),
        mixed_precision="no",
        gradient_accumulation_steps=1,
        **options,
    )
    try:
        launched = os.environ.get("WORLD_SIZE", "1")
        if int(launched) != accelerator.num_processes:
            raise ValueError(
                f"{launched} processes were launched, but they do not know of each other; use "
                "accelerate launch --multi_gpu --num_processes N."
            )
        if accelerator.device.type == "cpu":
            set_threads(threads)
        yield accelerator
    finally:
        accelerator.end_training()


def _pin(environment: MutableMapping[str, str]) -> None:
    """Set what PINNED says; say what that puts aside. ValueError for REFUSED."""
    for name, what in REFUSED.items():
        if environment.get(name, "").lower() in ("1", "true", "yes"):
            raise ValueError(
                f"accelerate is set up for {what} ({name}), which training here does not use; give "
                "accelerate launch --multi_gpu or --cpu, or change it with accelerate config."
            )
    aside = []
    for name, value in PINNED.items():
        if name in environment and environment[name].lower() != value:
            aside.append(f"{name}={environment[name]}")
        environment[name] = value
    if aside:
        sys.stderr.write(
            f"note: accelerate's settings {', '.join(aside)} are not used; --precision decides\n"
        )


def how_launched(accelerator: "Accelerator") -> dict[str, Any]:
    """What Accelerate did for a run, for its record."""
    return {
        "distributed": accelerator.distributed_type.value,
        "mixed_precision": accelerator.mixed_precision,
        "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        "dynamo_backend": accelerator.state.dynamo_plugin.backend.value.lower(),
    }


@contextlib.contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """A folder that no other run writes into while the block runs; made if it is not there, and taken away
    again if it stays empty.

    The lock ends with the process, however it ends. ValueError while another one holds it; OSError (one
    sentence) if nothing can be written there, which is so found out before any work is done.
    """
    path = folder / name
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _own(path, folder)
    except OSError as error:
        raise OSError(
            f"nothing can be written into {folder}: {error.strerror or error}. Give another --out, or "
            "make room or leave to write there."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):  # what stayed empty is taken away again
            for place in new:
                place.rmdir()


def _own(path: Path, folder: Path) -> IO[bytes]:
    """The lock's open file, held by this process. Where a file system has no locks, there are none."""
    while True:
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(path.open("a+b", buffering=0))
            if not _held(file, folder):
                opened.pop_all()
                return file
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    _say_whose(file)
                    opened.pop_all()
                    return file
            # whoever held it has just taken the file away


def _held(file: IO[bytes], folder: Path) -> bool:
    """Lock the file; whether this file system can. ValueError if another process holds it."""
    if fcntl is None:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return False
        file.seek(0)
        whose = file.read().decode("utf-8", "replace").strip() or "another process"
        raise ValueError(
            f"{folder} is in use by {whose}; wait until it ends, or give another --out."
        ) from error
    return True


def _say_whose(file: IO[bytes]) -> None:
    """Write who holds the lock, in as much room as a run needs at least; OSError if there is none."""
    file.truncate(0)
    content = f"process {os.getpid()} on {platform.node()}".encode()
    left = memoryview(content.ljust(ROOM))
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())
    file.truncate(len(content))


def set_threads(threads: int | None) -> None:
    """Give torch `threads`, or this process's share of the cores that it may use.

    accelerate launch sets OMP_NUM_THREADS=1 unless it is told otherwise.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, n_cores() // here))


def command_line(script: str, argv: Sequence[str]) -> str:
    """The command that makes a run of `script` again."""
    passing = ("--resume", "--overwrite", "--accept-changed-data")
    kept = [word for word in argv if word not in passing]
    return shlex.join(["accelerate", "launch", script, *kept])


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """A StopRequest that SIGINT and SIGTERM set while the block runs (in the main thread).

    The loop honours it between two steps. A second signal, a while later, ends the process the ordinary way.
    """
    request, first = StopRequest(), 0.0
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: object) -> None:
        nonlocal first
        if not request.requested:
            request.requested, first = True, time.monotonic()
        elif time.monotonic() - first > GRACE_SECONDS:
            restore()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
