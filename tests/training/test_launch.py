"""Every command starts from anywhere, and ends in one sentence and an exit status."""

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from sae.errors import HubError
from sae.terminal import command
from training import launch

ROOT = Path(__file__).resolve().parents[2]
ANOTHER_LIBRARY = "training/bench/peers/step.py"
COMMANDS = [
    path.relative_to(ROOT)
    for folder in ("training", "tests/browser")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
    and str(path.relative_to(ROOT)) != ANOTHER_LIBRARY
]


@pytest.mark.parametrize("path", COMMANDS, ids=str)
def test_commands_begin_and_end_alike(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    depth = len(path.parents) - 1
    start = (
        f"if not __package__:\n    sys.path[0] = str(Path(__file__).resolve().parents[{depth}])\n"
    )
    if path.parts[0] == "training":
        start += '    __import__("training")  # a Ctrl-C from here on ends in a sentence\n'
    assert text.count("sys.path") == text.count(start) == 1
    assert re.search(r"^@command\ndef main\(_?argv: list\[str\]\) -> (None|int):$", text, re.M)
    assert text.endswith('\n\nif __name__ == "__main__":\n    sys.exit(main())\n')
    before = text[: text.index(start)]
    imported = re.findall(r"^(?:from|import) (\w+)", before, re.M)
    assert set(imported) <= sys.stdlib_module_names, "imports before the path is set"


def test_the_path_is_set_up_in_commands_alone() -> None:
    others = [
        path
        for path in (ROOT / "training").rglob("*.py")
        if path.relative_to(ROOT) not in COMMANDS and path.name != "launch.py"
    ]
    assert not [path for path in others if "sys.path" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", ["training/grids.py", "training/bench/naming.py"])
def test_a_bare_clone_serves_from_another_folder(path: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = subprocess.run(
        [sys.executable, str(ROOT / path), "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith(f"usage: {Path(path).name}")


def ending(end: Callable[[], object]) -> str | int | None:
    """What SystemExit carries when a command ends by calling `end`."""

    @command
    def main(_argv: list[str]) -> None:
        end()

    with pytest.raises(SystemExit) as left:
        main([])
    return left.value.code


def fail(error: BaseException) -> Callable[[], object]:
    def end() -> None:
        raise error

    return end


@pytest.mark.parametrize("kind", [ValueError, OSError, HubError])
def test_expected_errors_end_in_one_sentence(kind: type[Exception]) -> None:
    assert ending(fail(kind("no such thing"))) == "error: no such thing"


def test_a_step_that_failed_passes_its_status_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(fail(subprocess.CalledProcessError(3, ["python", "a b.py"]))) == 3
    assert capsys.readouterr().err == "error: python 'a b.py' ended with 3\n"
    assert ending(fail(subprocess.CalledProcessError(-15, ["python"]))) == 143


def test_an_interrupt_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(fail(KeyboardInterrupt())) == 130
    assert ending(fail(KeyboardInterrupt("shards are kept"))) == 130
    assert capsys.readouterr().err == "\nstopped\n\nstopped; shards are kept\n"


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    @command
    def main(_argv: list[str]) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        main([])


def test_a_command_returns_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    @command
    def main(argv: list[str]) -> int | None:
        return len(argv) or None

    monkeypatch.setattr(sys, "argv", ["x", "a", "b"])
    assert (main(), main([]), main(("a",))) == (2, 0, 1)


def test_only_a_later_second_signal_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with launch.stop_on_signal() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        monkeypatch.setattr(launch, "GRACE_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def hold(folder: Path, name: str = ".lock") -> subprocess.Popen[str]:
    """A process that holds the lock of a folder until its standard input ends."""
    code = (
        "import sys; from pathlib import Path; from training.launch import locked\n"
        f"with locked(Path({str(folder)!r}), {name!r}): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_one_folder_serves_one_run_at_a_time(tmp_path: Path) -> None:
    other = hold(tmp_path)
    try:
        message = f"{tmp_path} is in use by process {other.pid} on .*another --out"
        with pytest.raises(ValueError, match=message), launch.locked(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with launch.locked(tmp_path):  # it ends with its process, however that ends
        assert (tmp_path / ".lock").is_file()
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "train --backbone bundled --data world --out {}",
        "extract --backbone bundled --data world --images 8 --out {}",
        "index --sae bundled --out {}",
    ],
)
def test_every_command_that_writes_asks_for_its_folder(words: str, tmp_path: Path) -> None:
    name, *rest = words.format(tmp_path / "out").split()
    module = import_module(f"training.{name}")
    other = hold(tmp_path / "out", ".index.lock" if name == "index" else ".lock")
    try:
        with pytest.raises(SystemExit, match=r"error: .*out is in use by process \d+"):
            module.main(rest)
    finally:
        other.communicate("")


def test_a_folder_without_room_or_leave_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(OSError, match=f"nothing can be written into {folder}: "):
            launch.locked(folder).__enter__()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, before[1]))
    try:
        with pytest.raises(OSError, match="nothing can be written .*: File too large"):
            launch.locked(tmp_path / "full").__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_accelerates_settings_do_not_reach_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in launch.PINNED:
        monkeypatch.setenv(name, launch.PINNED[name])
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with launch.processes(cpu=True) as accelerator:
        assert launch.how_launched(accelerator) == {
            "distributed": "NO",
            "mixed_precision": "no",
            "gradient_accumulation_steps": 1,
            "dynamo_backend": "no",
        }
    said = capsys.readouterr().err
    assert "ACCELERATE_MIXED_PRECISION=fp16, ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4" in said
    for name in launch.REFUSED:
        with monkeypatch.context() as one:
            one.setenv(name, "true")
            with (
                pytest.raises(ValueError, match=f"accelerate is set up for .*{name}"),
                launch.processes(cpu=True),
            ):
                pass


@pytest.mark.slow
def test_ctrl_c_while_a_command_imports_ends_in_a_sentence() -> None:
    code = "import training, signal; signal.raise_signal(signal.SIGINT)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == "\nstopped before anything began\n"
