"""Two processes with half the batch each follow one process, stop together and go on exactly."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from sae.model import SparseAutoencoder
from tests.training.training_processes import Moment, begin, end, printed, train_all

ARCHS = ("topk", "batch_topk", "matryoshka", "jumprelu", "relu")
SETTINGS: dict[str, Any] = {"steps": 50, "d_sae": 96, "log_every": 1, "dead_after": 512}
SETTINGS |= {
    "lr": 2e-3,
    "aux": 0.1,
    "ghost": True,
    "loss": "patchsae",
    "l1": 0.1,
    "sweep": f"arch={','.join(ARCHS)}",
}


def log(out: Path, arch: str) -> list[dict[str, float]]:
    lines = (out / f"arch-{arch}" / "progress.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, several SAEs at once."""
    out = tmp_path_factory.mktemp("two") / "run"
    train_all({**SETTINGS, "out": str(out), "batch_size": 32}, world=2)
    return out


def test_two_processes_follow_one(two: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    train_all({**SETTINGS, "out": str(one), "batch_size": 64})
    for arch in ARCHS:
        first, second = ([line["loss"] for line in log(out, arch)] for out in (one, two))
        assert len(first) == len(second) == 50
        assert second == pytest.approx(first, rel=1e-4), arch
        dead, of_two = ([line["dead_fraction"] for line in log(out, arch)] for out in (one, two))
        assert of_two == pytest.approx(dead, abs=1.01 / 96), f"{arch}: counters are not shared"
        assert max(dead) > 0, f"{arch}: no latent was ever to be revived"
        made, expected = (
            SparseAutoencoder.from_pretrained(out / f"arch-{arch}") for out in (two, one)
        )
        thresholds = [sae.cfg.threshold or 0.0 for sae in (made, expected)]
        assert thresholds[0] == pytest.approx(thresholds[1], rel=1e-3)
        torch.testing.assert_close(made.b_dec, expected.b_dec, rtol=1e-3, atol=1e-3)


def test_one_signal_stops_all_at_the_same_step_and_the_run_goes_on_exactly(
    two: Path, tmp_path: Path
) -> None:
    stopped: dict[str, Any] = {**SETTINGS, "out": str(tmp_path / "run"), "batch_size": 32}
    moment = Moment(20, signal=signal.SIGTERM, rank=1)
    assert end(begin(stopped, world=2, moment=moment)) == [0, 0], printed(stopped["out"])
    assert "Go on with the same command and --resume." in printed(stopped["out"])
    (folder,) = (tmp_path / "run" / "arch-topk" / "checkpoints").iterdir()
    assert folder.name == "step_00000020"
    assert len(json.loads((folder / "state.json").read_text())["streams"]) == 2
    elastic = {**stopped, "out": str(tmp_path / "elastic"), "resume": True}
    shutil.copytree(stopped["out"], elastic["out"])
    train_all({**elastic, "checkpoint_every": 10}, world=1)
    assert "made by 2 processes; each of this run's 1 takes 64 tokens" in printed(elastic["out"])
    for arch in ARCHS:
        first, second = (
            [line["loss"] for line in log(Path(o), arch)] for o in (elastic["out"], two)
        )
        assert second == pytest.approx(first, rel=1e-4), arch
    train_all({**elastic, "checkpoint_every": 10}, world=1)  # the same command, once more
    train_all({**elastic, "checkpoint_every": 10}, world=2)
    assert end(begin({**elastic, "batch_size": 16}, world=1)) == [1]
    assert "--batch-size is 16, but" in printed(elastic["out"])
    assert end(begin(elastic, world=3)) == [1] * 3
    assert "64 tokens a step, which 3 cannot share alike" in printed(elastic["out"])
    train_all({**stopped, "resume": True}, world=2)
    for arch in ARCHS:
        straight, resumed = (
            SparseAutoencoder.from_pretrained(out / f"arch-{arch}")
            for out in (two, tmp_path / "run")
        )
        assert straight.cfg == resumed.cfg
        for name, expected in straight.named_parameters():
            assert torch.equal(resumed.get_parameter(name), expected), (arch, name)
        steps = [line["step"] for line in log(tmp_path / "run", arch)]
        assert steps == list(range(1, 51))
