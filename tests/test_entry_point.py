"""The command `patchlens`: it lists its commands at once, and each of them is the module's own `main`."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from patchlens.__main__ import COMMANDS, main
from sae.world.scenes import Scene, SceneObject, compose
from training.world.words import description

ROOT = Path(__file__).resolve().parents[1]
QUICK = """
import sys
from patchlens.__main__ import main
main(["--help"])
heavy = [name for name in ("torch", "sae", "training", "numpy", "argparse") if name in sys.modules]
assert not heavy, heavy
"""

WITHOUT_THE_EXTRA = """
import sys
sys.modules |= dict.fromkeys(("accelerate", "datasets", "matplotlib", "numba"))
from patchlens.__main__ import main
main(["publish", *sys.argv[1:]])
"""


@pytest.fixture(autouse=True)
def _own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=True)
    told = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert told == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert said.startswith(f"usage: patchlens {name} ")
    assert "--help" in said
    if COMMANDS[name][0].startswith("training."):  # its examples are those of a clone
        assert f"Installed, the same command is `patchlens {name} …`." in " ".join(said.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_alike(name: str) -> None:
    program = importlib.import_module(COMMANDS[name][0])
    assert hasattr(program.main, "__wrapped__"), "main is decorated with sae.terminal.command"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["space", "out"], 0, "out: LICENSE"),
        (["push", "nothing", "user/name"], 1, "error: user/name: the card of nothing"),
    ],
)
def test_publishing_needs_nothing_of_training(
    words: list[str], status: int, said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, *words],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr


def test_an_unknown_command_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["trian"]) == 2
    assert "no command 'trian'; expected one of demo, steer" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_extra_that_has_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without_accelerate(name: str) -> object:
        if name == "training.extract":
            raise ModuleNotFoundError("No module named 'accelerate'", name="accelerate")
        return real(name)

    monkeypatch.setattr("patchlens.__main__.import_module", without_accelerate)
    assert main(["extract"]) == 1
    said = capsys.readouterr().err
    assert "patchlens extract needs accelerate" in said
    assert "pip install '.[train]' in a clone" in said


def test_steer_tells_both_captions(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene("sand", (SceneObject("tiger", x=40),))
    Image.fromarray(compose(scene).image).save(tmp_path / "photo.png")
    assert main(["steer", str(tmp_path / "photo.png"), "--edit", "12=0", "--edit", "7=3"]) == 0
    said = capsys.readouterr().out
    assert "edit        latent 12" in said
    assert f"as it is    {description(scene)}" in said
    assert "steered     a" in said
    with pytest.raises(SystemExit, match="error: .*There is no file"):
        main(["steer", str(tmp_path / "none.png"), "--edit", "1=1"])


def test_an_edit_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["steer", "photo.png", "--edit", "tiger"])
    assert "expected LATENT=STRENGTH" in capsys.readouterr().err
