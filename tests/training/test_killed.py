"""A run that is killed with SIGKILL at any step, and taken up again, ends with the same bits."""

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch

from sae.model import SparseAutoencoder
from tests.training.training_processes import begin, end, printed, train_all
from training.loop.checkpoints import STATE, TENSORS

STEPS = 60
SETTINGS: dict[str, Any] = {"steps": STEPS, "arch": "batch_topk", "dead_after": 512, "aux": 0.1}
SETTINGS |= {"checkpoint_every": 4, "log_every": 1, "lr": 2e-3, "seed": 3}


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def newest(out: Path) -> Path:
    return max((out / "checkpoints").glob("step_*"))


def test_killed_at_any_step_and_resumed_the_bits_are_the_same(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train_all({**SETTINGS, "out": str(straight)})
    settings = {**SETTINGS, "out": str(killed)}
    kills = sorted(random.sample(range(12, STEPS - 5), 3))
    for number, step in enumerate(kills):
        (process,) = processes = begin({**settings, "resume": number > 0})
        began = time.monotonic()
        while n_lines(killed / "progress.jsonl") < step and process.is_alive():
            assert time.monotonic() - began < 100
            time.sleep(0.002)
        process.kill()
        assert end(processes) == [-signal.SIGKILL], (kills, printed(killed))
    # the newest checkpoint is damaged too: the one before it is as good
    damaged = newest(killed)
    tensors = damaged / TENSORS
    tensors.write_bytes(tensors.read_bytes()[:-4])
    shutil.copytree(damaged, killed / "checkpoints" / f".{damaged.name}")
    train_all({**settings, "resume": True})
    assert f"{damaged.name} is damaged and was left out" in printed(killed), kills
    one, other = (SparseAutoencoder.from_pretrained(out) for out in (straight, killed))
    assert one.cfg == other.cfg, kills
    for name, expected in one.named_parameters():
        assert torch.equal(other.get_parameter(name), expected), (name, kills)
    states = [json.loads((newest(out) / STATE).read_text()) for out in (straight, killed)]
    assert states[0]["step"] == states[1]["step"] == STEPS
    # every tensor: weights, moments, dead counters, threshold; and the position in the data
    assert states[0]["sha256"] == states[1]["sha256"], kills
    assert states[0]["streams"] == states[1]["streams"], kills
    lines = [(out / "progress.jsonl").read_text().splitlines() for out in (straight, killed)]
    losses = [[json.loads(line)["loss"] for line in found] for found in lines]
    assert losses[0] == losses[1], kills
    assert not list((killed / "checkpoints").glob(".*"))
