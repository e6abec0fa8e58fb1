"""A run as a whole: it learns, stops, goes on exactly, and tells what is amiss."""

import itertools
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from sae.config import ARCHITECTURES
from sae.hub import HubError
from sae.model import SparseAutoencoder
from tests.training_parts import backbone, config, picture, pictures, run
from training import report
from training.config import TrainConfig
from training.run import Run
from training.sources import ImageSource
from training.train import check_folder, train


def go(settings: TrainConfig, source: ImageSource | None = None) -> bool:
    return train(
        settings,
        Accelerator(cpu=True),
        backbone(),
        source or pictures(),
        pictures(8),
        "the command",
    )


def parameters(made: Run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.weights.named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_run_learns_and_leaves_an_artifact(architecture: str, tmp_path: Path) -> None:
    assert go(config(tmp_path, arch=architecture, steps=60, lr=3e-3))
    sae = SparseAutoencoder.from_pretrained(tmp_path)
    assert (sae.cfg.architecture, sae.cfg.d_in, sae.cfg.d_sae) == (architecture, 32, 64)
    assert (sae.cfg.backbone.id, sae.cfg.backbone.layer) == ("local", 1)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["fvu"] < 0.6
    assert 0 < metrics["l0"] < (40 if architecture in ("relu", "jumprelu") else 6)
    assert 0 <= metrics["dead_fraction"] < 0.5
    evidence = {"command": "the command", "data": "squares", "n_images": 8, "n_tokens": 136}
    assert metrics["evidence"]["fvu"].items() >= evidence.items()
    training = json.loads((tmp_path / "training.json").read_text())
    assert training["tokens"] == 60 * 64
    assert training["dataset"] == "squares"
    assert training["versions"]["torch"]
    assert "# Sparse autoencoder for local, layer 1" in (tmp_path / "README.md").read_text()
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.parametrize("architecture", ["topk", "matryoshka", "jumprelu"])
def test_a_resumed_run_is_the_straight_run_bit_for_bit(architecture: str, tmp_path: Path) -> None:
    settings = config(tmp_path / "straight", arch=architecture, checkpoint_every=9, dead_after=64)
    assert go(settings)
    half = config(tmp_path / "half", arch=architecture, dead_after=64, resume=True)
    shutil.copytree(
        tmp_path / "straight" / "checkpoints" / "step_00000009",
        tmp_path / "half" / "checkpoints" / "step_00000009",
    )
    assert go(half)
    one, other = (SparseAutoencoder.from_pretrained(tmp_path / n) for n in ("straight", "half"))
    assert one.cfg == other.cfg
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
    figures = [
        json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("straight", "half")
    ]
    assert figures[0] == figures[1]


def test_ctrl_c_saves_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(config(tmp_path / "straight"))

    def interrupt(number: int):
        if number == 33:
            signal.raise_signal(signal.SIGINT)
        return picture(number)

    # the reader runs beside the main thread, in which Python's handlers run
    before = signal.getsignal(signal.SIGINT)
    assert not go(config(tmp_path / "stopped"), ImageSource("squares", interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    said = capsys.readouterr().out
    assert "Go on with the same command and --resume." in said
    assert not (tmp_path / "stopped" / "config.json").exists()
    assert go(config(tmp_path / "stopped", resume=True))
    one, other = (SparseAutoencoder.from_pretrained(tmp_path / n) for n in ("straight", "stopped"))
    assert torch.equal(one.W_dec, other.W_dec)
    assert torch.equal(one.W_enc, other.W_enc)


def test_only_the_newest_checkpoints_stay_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    assert go(config(tmp_path, checkpoint_every=5))
    folders = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert folders == ["step_00000015", "step_00000020"]
    tensors = tmp_path / "checkpoints" / "step_00000020" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    made = run(config(tmp_path, resume=True))
    (message,) = made.restore()
    assert "step_00000020 is damaged and was left out" in message
    assert made.n_steps == 15


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--resume: no checkpoint in"):
        run(config(tmp_path, resume=True)).restore()
    assert go(config(tmp_path, checkpoint_every=10))
    with pytest.raises(ValueError, match="--k is 5, but .*step_00000020 was made with 4"):
        run(config(tmp_path, resume=True, k=5)).restore()
    with pytest.raises(ValueError, match="already holds config.json and checkpoints"):
        check_folder(config(tmp_path))
    check_folder(config(tmp_path, resume=True))
    check_folder(config(tmp_path, overwrite=True))
    check_folder(config(tmp_path / "new"))


def test_a_finished_run_can_be_resumed_without_a_step(tmp_path: Path) -> None:
    assert go(config(tmp_path, checkpoint_every=20))
    before = SparseAutoencoder.from_pretrained(tmp_path).W_enc.clone()
    assert go(config(tmp_path, checkpoint_every=20, resume=True))
    assert torch.equal(SparseAutoencoder.from_pretrained(tmp_path).W_enc, before)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    made = run(config(tmp_path))
    made.start()
    x = next(iter(made.stream))
    with torch.no_grad():
        made.weights.W_enc[0, 0] = float("nan")
    out = made.step(x)
    with pytest.raises(ValueError, match="the loss became nan in step 1.*Lower --lr"):
        made.progress(x, out)


def test_a_wrong_layer_names_the_layers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layer 7 does not exist: local has 3 layers"):
        run(config(tmp_path, layer=7))


def test_dead_latents_and_the_threshold_are_tracked() -> None:
    made = run(config(arch="batch_topk", dead_after=128))
    made.start()
    with torch.no_grad():
        made.weights.b_enc[7] = -100.0
    for x in itertools.islice(made.stream, 15):
        made.step(x)
    assert bool(made.dead[7])
    assert int(made.since_fired[7]) == 15 * 64
    assert float(made.threshold) > 0
    assert made.to_sae().cfg.threshold == pytest.approx(float(made.threshold) * made.scale)


def test_a_failed_push_says_how_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> str:
        raise HubError("user/name: the upload failed: the Hub answered HTTP 503.")

    monkeypatch.setattr(report, "push_folder", refuse)
    assert go(config(tmp_path, push_to="user/name"))
    said = capsys.readouterr().out
    assert "HTTP 503" in said
    assert f"hf upload user/name {tmp_path} . --exclude 'checkpoints/*'" in said
