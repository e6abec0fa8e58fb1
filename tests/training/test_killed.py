"""A run that is killed with SIGKILL, whatever it was about, and taken up again ends with the same bits."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import torch

from sae.model import SparseAutoencoder
from tests.training.training_processes import Moment, begin, end, printed, train_all
from training.loop.checkpoints import STATE, TENSORS

STEPS = 60
SETTINGS: dict[str, Any] = {"steps": STEPS, "arch": "batch_topk", "dead_after": 512, "aux": 0.1}
SETTINGS |= {"checkpoint_every": 4, "log_every": 1, "lr": 2e-3, "seed": 3}
MOMENTS = (
    Moment(14),
    Moment(28, "within its checkpoint"),
    Moment(40, "before its artifact"),
    Moment(51),
)
"""Between two checkpoints; while one is written; when it is whole and the artifact is the last one's."""


def newest(out: Path) -> Path:
    return max((out / "checkpoints").glob("step_*"))


def test_killed_and_resumed_the_bits_are_the_same(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train_all({**SETTINGS, "out": str(straight)})
    settings = {**SETTINGS, "out": str(killed)}
    settings = {**SETTINGS, "out": str(killed)}
    for number, moment in enumerate(MOMENTS):
        processes = begin({**settings, "resume": number > 0}, moment=moment)
        assert end(processes) == [-signal.SIGKILL], (moment, printed(killed))
    # the newest checkpoint is damaged too: the one before it is as good
    damaged = newest(killed)
    tensors = damaged / TENSORS
    tensors.write_bytes(tensors.read_bytes()[:-4])
    shutil.copytree(damaged, killed / "checkpoints" / f".{damaged.name}")
    train_all({**settings, "resume": True})
    assert f"{damaged.name} is damaged and was left out" in printed(killed)
    one, other = (SparseAutoencoder.from_pretrained(out) for out in (straight, killed))
    assert one.cfg == other.cfg
    for name, expected in one.named_parameters():
        assert torch.equal(other.get_parameter(name), expected), name
    states = [json.loads((newest(out) / STATE).read_text()) for out in (straight, killed)]
    assert states[0]["step"] == states[1]["step"] == STEPS
    # every tensor: weights, moments, dead counters, threshold; and the position in the data
    assert states[0]["sha256"] == states[1]["sha256"]
    assert states[0]["streams"] == states[1]["streams"]
    lines = [(out / "progress.jsonl").read_text().splitlines() for out in (straight, killed)]
    losses = [[json.loads(line)["loss"] for line in found] for found in lines]
    assert losses[0] == losses[1]
    assert not list((killed / "checkpoints").glob(".*"))
