"""Starting a command: its processes and threads, the signals that stop it, and how it ends.

A command is a module with a `main(argv)`, decorated with `command`, that returns its exit status. The same
module runs as `python training/x.py`, `accelerate launch training/x.py`, `python -m training.x` and, where
the package is installed, through its entry point. Started by its path, a module has nothing but its own
folder on the import path, so each begins with the one line that cannot be imported:

    if not __package__:
        sys.path[0] = str(Path(__file__).resolve().parents[1])

Knows Accelerate and signals. Knows nothing of what is run.
"""

import contextlib
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C stopped: 128 and the signal's number, as shells have it."""
GRACE_SECONDS = 5.0
"""Signals that follow the first within this time are part of it: launchers pass on to their workers
what a terminal has already sent to all of them."""


class Command(Protocol):
    """What a script and an entry point call."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(main: Callable[[list[str]], int | None]) -> Command:
    """`main(words)` as a command: without `argv` it takes this process's; it returns the exit status.

    Expected errors (a file, the Hub, an artifact, a value: OSError and ValueError) leave as SystemExit with
    one sentence, which Python writes on stderr, and status 1. A step that failed in a process of its own
    has said why; its status is passed on. Ctrl-C leaves with status 130. Anything else is a fault of ours
    and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(list(sys.argv[1:] if argv is None else argv)) or 0
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"error: {shlex.join(error.cmd)} ended with {error.returncode}\n")
            sys.exit(error.returncode if error.returncode > 0 else 128 - error.returncode)
        except KeyboardInterrupt as stop:
            sys.stderr.write("\n" + "; ".join(["stopped", *map(str, stop.args)]) + "\n")
            sys.exit(INTERRUPTED)

    return run


@contextlib.contextmanager
def processes(
    *, threads: int | None = None, cpu: bool = False, **options: Any
) -> "Iterator[Accelerator]":
    """This run's processes and the CPU's threads; `options` are Accelerator's. Closed at the end.

    `threads`: CPU threads of this process (default: all cores, shared by the machine's processes).
    ValueError if the launcher's processes do not know of each other.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=cpu or not torch.cuda.is_available(), **options)
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


def set_threads(threads: int | None) -> None:
    """Give torch `threads`, or this process's share of the machine's cores.

    accelerate launch sets OMP_NUM_THREADS=1 unless it is told otherwise.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // here))


def command_line(script: str, argv: Sequence[str]) -> str:
    """The command that makes a run of `script` again."""
    kept = [word for word in argv if word not in ("--resume", "--overwrite")]
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
