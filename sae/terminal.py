"""What every command needs of its machine: words, a terminal, cores, a way around proxies, and an end.

A command is a module with a `main(argv)`, decorated with `command`, that returns its exit status. Knows the
standard library, and what safetensors says of a damaged file. Knows nothing of what is run.
"""

import contextlib
import functools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError

CGROUPS = Path("/sys/fs/cgroup")
NAMES = ("bundled", "world")
"""What stands for data and models of PatchLens, whatever folders there are."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
INTERRUPTED = 130
"""The exit status of a command that Ctrl-C stopped: 128 and the signal's number, as shells have it."""


class Command(Protocol):
    """What a script and an entry point call."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(main: Callable[[list[str]], int | None]) -> Command:
    """`main(words)` as a command: without `argv` it takes this process's; it returns the exit status.

    Expected errors (a file, the Hub, an artifact, a value: OSError, ValueError, SafetensorError) leave as
    SystemExit with one sentence, which Python writes on stderr, and status 1. A step that failed in a
    process of its own has said why; its status is passed on. Ctrl-C leaves with status 130. Anything else
    is a fault of ours and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(arguments(argv)) or 0
        except (ValueError, OSError, SafetensorError) as error:
            sys.exit(f"error: {error}")
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"error: {shlex.join(error.cmd)} ended with {error.returncode}\n")
            sys.exit(error.returncode if error.returncode > 0 else 128 - error.returncode)
        except KeyboardInterrupt as stop:
            sys.stderr.write("\n" + "; ".join(["stopped", *map(str, stop.args)]) + "\n")
            sys.exit(INTERRUPTED)

    return run


def described(text: str, name: str) -> str:
    """The description that a parser prints: a script's own `text`, and what it is called once installed."""
    return f"{text.rstrip()}\n\nInstalled, the same command is `patchlens {name} …`."


def arguments(argv: Sequence[str] | None = None) -> list[str]:
    """The words of a command line (default: this process's), "~" opened in `~/x` and in `--option=~/x`.

    Shells open only the first. Also lets this process print any name on any terminal: what the
    terminal's encoding lacks is written as an escape.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    return [_at_home(word) for word in (sys.argv[1:] if argv is None else argv)]


def print_json(value: object) -> None:
    """Print a value as JSON that can be read again: letters that the terminal lacks as JSON's own escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(value, indent=2)
    sys.stdout.write(text + "\n")


def _at_home(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(value)}" if value[:1] == "~" else word


def local_path(id_or_path: str, names: Sequence[str] = NAMES) -> str:
    """A folder or file as an absolute path, so that it is found from any folder; `names` of PatchLens and
    other names as they are."""
    if id_or_path in names:
        return id_or_path
    path = Path(id_or_path).expanduser()
    if path.exists():
        return str(path.absolute())
    name, mark, column = id_or_path.partition("#")  # a column of a data set that is a folder
    return f"{local_path(name, names)}{mark}{column}" if mark else id_or_path


def n_cores() -> int:
    """The processor cores that this process may use: its affinity, and the quota of its control group."""
    affinity = getattr(os, "sched_getaffinity", None)
    n = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(n, _quota() or n))


def _quota() -> int:
    """Whole cores that control groups (version 2, then 1) grant; 0 for no limit."""
    try:
        quota, period = (CGROUPS / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (CGROUPS / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (CGROUPS / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")
        except (OSError, ValueError):
            return 0
    try:
        return max(0, -(-int(quota) // int(period)))
    except (ValueError, ZeroDivisionError):  # "max"
        return 0


@contextlib.contextmanager
def no_proxies(environment: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """No proxy is set while the block runs: a server that asks itself whether it is up asks directly."""
    names = [name for name in environment if name.lower() in PROXIES]
    kept = {name: environment.pop(name) for name in names}
    try:
        yield
    finally:
        environment.update(kept)
