"""What one sees of a run: trackers, the log across resumptions, and uploads that fail."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from sae.errors import HubError
from sae.model import SparseAutoencoder
from tests.training.training_parts import backbone, config, pictures
from training.loop import results
from training.loop.monitor import read_log, trackers
from training.train import open_processes, train


def test_a_missing_tracker_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trackers(config()) == []
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "trackio" else found(name)
    )
    with pytest.raises(ValueError, match="--trackio needs .* pip install trackio"):
        trackers(config(trackio=True))


def test_tensorboard_gets_every_figure(tmp_path: Path) -> None:
    accumulate = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = config(tmp_path, tensorboard=True, threads=1)
    with open_processes(settings) as accelerator:
        assert train(settings, accelerator, backbone(), pictures(), pictures(8), "cmd")
    events = accumulate.EventAccumulator(str(tmp_path / "patchlens"))
    events.Reload()
    tags = {"loss", "fvu", "l0", "dead_fraction", "tokens_per_second"}
    assert tags <= set(events.Tags()["scalars"])
    logged = [line["fvu"] for line in read_log(tmp_path / "progress.jsonl")]
    assert [event.value for event in events.Scalars("fvu")] == pytest.approx(logged)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    assert read_log(path) == []
    path.write_text('{"step": 10}\n{"step": 20}\n{"st')
    assert [line["step"] for line in read_log(path)] == [10, 20]


def test_checkpoints_are_pushed_while_training_and_failures_do_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed: list[tuple[set[str], int]] = []

    def upload(folder: Path, repo_id: str, **_: Any) -> str:
        assert repo_id == "me/sae"
        SparseAutoencoder.from_pretrained(folder)
        steps = json.loads((Path(folder) / "training.json").read_text())["steps"]
        pushed.append(({path.name for path in Path(folder).iterdir()}, steps))
        if len(pushed) == 1:
            raise HubError("me/sae: the upload failed: the Hub answered HTTP 503.")
        return "https://hub/commit"

    monkeypatch.setattr(results, "push_folder", upload)
    settings = config(tmp_path, push_to="me/sae", push_every=True, checkpoint_every=10)
    assert train(settings, Accelerator(cpu=True), backbone(), pictures(), pictures(8), "cmd")
    assert [steps for _, steps in pushed][0] == 10
    assert pushed[-1][1] == 20
    assert not any(name in ("checkpoints", "progress.jsonl") for name in pushed[0][0])
    said = capsys.readouterr().out
    assert "HTTP 503" in said
    assert f"patchlens publish push {tmp_path} me/sae" in said
    assert "pushed to https://hub/commit" in said
    assert not list(tmp_path.glob(".push-*"))
