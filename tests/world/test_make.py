"""The recipe of everything that is bundled: its commands are there, and can be run one by one."""

import argparse
from pathlib import Path

import pytest

from training.tasks import make as heads
from training.world import make

ROOT = Path(make.__file__).resolve().parents[2]


@pytest.mark.parametrize("into", [make.BUNDLED, Path("elsewhere")])
def test_every_step_is_a_command_that_is_there(into: Path, tmp_path: Path) -> None:
    world = make.steps(into, tmp_path, "cpu")
    args = argparse.Namespace(into=tmp_path, bundle=into, backbone="bundled", threads=None)
    for name, words in [*world.items(), *heads.steps(args)]:
        scripts = [word for word in words if word.endswith(".py")]
        assert scripts, name
        assert all((ROOT / script).is_file() for script in scripts), name


def test_only_the_steps_that_are_named_are_run(capfd: pytest.CaptureFixture) -> None:
    recipe = [(name, ["echo", f"ran {name}"]) for name in ("one", "two")]
    make.run_steps("world", recipe, ["two"])
    said = capfd.readouterr().out
    assert "ran two" in said
    assert "ran one" not in said
