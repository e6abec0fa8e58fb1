"""A run as a whole: it learns, stops, goes on exactly, and tells what is amiss."""

import errno
import itertools
import json
import re
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from sae.architectures import ARCHITECTURES
from sae.errors import HubError, ImageError
from sae.model import SparseAutoencoder
from tests.training.training_parts import backbone, config, picture, pictures, run
from training.data.sources import ImageSource
from training.loop import checkpoints, results
from training.loop.checkpoints import NotSaved
from training.loop.config import TrainConfig
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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_run_learns_and_leaves_an_artifact(architecture: str, tmp_path: Path) -> None:
    assert go(config(tmp_path, arch=architecture, steps=60, lr=3e-3))
    sae = SparseAutoencoder.from_pretrained(tmp_path)
    assert (sae.cfg.architecture, sae.cfg.d_in, sae.cfg.d_sae) == (architecture, 32, 64)
    assert (sae.cfg.backbone.id, sae.cfg.backbone.layer) == ("local", 1)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["fvu"] < 0.6
    assert 0 < metrics["l0"] < (40 if architecture in ("relu", "jumprelu") else 6)
    assert metrics["dead_fraction"] is metrics["rare_fraction"] is None, "136 tokens tell nothing"
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
    kinds = metrics["by_token_kind"]
    assert kinds.keys() == {"all", "cls", "patches"}
    assert kinds["all"]["fvu"] == metrics["fvu"]
    assert 16 * kinds["patches"]["l0"] + kinds["cls"]["l0"] == pytest.approx(17 * metrics["l0"])
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size == (1100, 660)


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
    halfway = SparseAutoencoder.from_pretrained(tmp_path / "stopped")
    assert halfway.encode(torch.zeros(2, 32)).shape == (2, 64)
    training = json.loads((tmp_path / "stopped" / "training.json").read_text())
    assert training["steps"] < training["steps_planned"] == 20
    assert go(config(tmp_path / "stopped", resume=True))
    one, other = (SparseAutoencoder.from_pretrained(tmp_path / n) for n in ("straight", "stopped"))
    assert torch.equal(one.W_dec, other.W_dec)
    assert torch.equal(one.W_enc, other.W_enc)


@pytest.mark.parametrize(("d_sae", "k"), [(64, 4), (128, 8), (256, 12)])
def test_a_short_jumprelu_run_ends_at_the_l0_it_was_asked_for(
    tmp_path: Path, d_sae: int, k: int
) -> None:
    assert go(config(tmp_path, arch="jumprelu", steps=200, d_sae=d_sae, k=k, eval_images=64))
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    last = [line["l0"] for line in lines[-5:]]
    assert sum(last) / len(last) == pytest.approx(k, rel=0.05)


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


def test_a_run_that_has_learned_nothing_does_not_end_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(config(tmp_path / "wild", lr=3.0))
    said = capsys.readouterr().out
    assert re.search(r"warning: an fvu of \S+ is no better than .*Lower --lr \(it was 3\)", said)
    assert go(config(tmp_path / "calm", steps=40))
    assert "warning" not in capsys.readouterr().out


def two_checkpoints(out: Path) -> Path:
    """The state.json of the second."""
    made = run(config(out))
    assert made.start()
    x = next(made.batches())
    for _ in range(2):
        made.step(x)
        made.save()
    return out / "checkpoints" / "step_00000002" / "state.json"


@pytest.mark.parametrize(
    "change", [{"scale": 2.0}, {"step": 7}, {"seconds": "long"}, {"streams": None}, {"config": {}}]
)
def test_an_altered_state_falls_back_to_the_older_checkpoint(change: dict, tmp_path: Path) -> None:
    path = two_checkpoints(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    again = run(config(tmp_path, resume=True))
    (message,) = again.restore()
    assert "step_00000002 is damaged and was left out" in message
    assert again.n_steps == 1


@pytest.mark.parametrize("name", ["scale", "n_processes", "streams", "step"])
def test_a_state_of_an_older_version_goes_on_unless_it_lacks_something(
    name: str, tmp_path: Path
) -> None:
    path = two_checkpoints(tmp_path)
    state = json.loads(path.read_text())
    del state["content_sha256"]
    path.write_text(json.dumps(state))
    with pytest.warns(UserWarning, match=r"state\.json is of an older PatchLens"):
        assert run(config(tmp_path, resume=True)).restore() == []
    del state[name]
    path.write_text(json.dumps(state))
    (message,) = run(config(tmp_path, resume=True)).restore()
    assert "step_00000002 is damaged and was left out" in message


def test_a_step_that_is_saved_already_is_not_written_again_unless_damaged(tmp_path: Path) -> None:
    made = run(config(tmp_path, keep_checkpoints=1))
    made.start()
    (folder,) = made.save()
    tensors = folder / "state.safetensors"
    file, content = tensors.stat().st_ino, tensors.read_bytes()
    assert made.save() == [folder]
    assert tensors.stat().st_ino == file
    tensors.write_bytes(content[:-1])
    assert made.save() == [folder]
    assert tensors.read_bytes() == content


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--resume: no checkpoint in"):
        run(config(tmp_path, resume=True)).restore()
    assert go(config(tmp_path, checkpoint_every=10))
    with pytest.raises(ValueError, match="--k is 5, but .*step_00000020 was made with 4"):
        run(config(tmp_path, resume=True, k=5)).restore()
    with pytest.raises(ValueError, match="already holds config.json, checkpoints.* --resume"):
        check_folder(tmp_path, config(tmp_path))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="already holds README.md"):
        check_folder(tmp_path / "notes", config(tmp_path / "notes"))
    made = run(config(tmp_path, resume=True))
    made.backbone.d_model = 48
    with pytest.raises(ValueError, match="step_00000020 is of width 32, but local has .* 48"):
        made.restore()
    check_folder(tmp_path, config(tmp_path, resume=True))
    check_folder(tmp_path, config(tmp_path, overwrite=True))
    check_folder(tmp_path / "new", config(tmp_path / "new"))


def test_a_finished_run_can_be_resumed_without_a_step(tmp_path: Path) -> None:
    assert go(config(tmp_path, checkpoint_every=20))
    before = SparseAutoencoder.from_pretrained(tmp_path).W_enc.clone()
    assert go(config(tmp_path, checkpoint_every=20, resume=True))
    assert torch.equal(SparseAutoencoder.from_pretrained(tmp_path).W_enc, before)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    made = run(config(tmp_path))
    made.start()
    x = next(iter(made.stream))
    with torch.no_grad():  # of a latent that never fires, so that the loss is a number yet
        made.trainers[0].weights.b_enc[0] = -1e9
        made.trainers[0].weights.W_dec[0, 0] = float("nan")
    outs = made.step(x)
    with pytest.raises(ValueError, match="a weight became NaN or infinite by step 1"):
        made.progress(x, outs)
    with torch.no_grad():
        made.trainers[0].weights.b_dec[0] = float("nan")
    outs = made.step(x)
    with pytest.raises(ValueError, match="the loss became nan by step 2.*Lower --lr"):
        made.progress(x, outs)
    with pytest.raises(ValueError, match="a weight became NaN or infinite by step 2"):
        made.save()
    assert not (tmp_path / "checkpoints").exists()


def test_a_wrong_layer_names_the_layers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layer 7 does not exist: local has 3 layers"):
        run(config(tmp_path, layer=7))


def test_dead_latents_and_the_threshold_are_tracked() -> None:
    made = run(config(arch="batch_topk", dead_after=128))
    made.start()
    (sae,) = made.trainers
    with torch.no_grad():
        sae.weights.b_enc[7] = -100.0
    smallest, expected = [], -1.0
    for x in itertools.islice(made.batches(), 15):
        smallest.append(float(made.step(x)[0].smallest))
    # 20 steps: the average starts after ten of them and remembers half
    for value in smallest[10:]:
        expected = value if expected < 0 else 0.5 * expected + 0.5 * value
    assert bool(sae.dead[7])
    assert int(sae.since_fired[7]) == 15 * 64
    assert float(sae.threshold) == pytest.approx(expected)
    assert sae.to_sae(made.where).cfg.threshold == pytest.approx(expected * sae.scale)


def test_a_failed_push_says_how_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise HubError("user/name: the upload failed: the Hub answered HTTP 503.")

    monkeypatch.setattr(results, "push_folder", refuse)
    settings = config(tmp_path, push_to="user/name", push_every=True, checkpoint_every=20)
    assert go(settings)
    said = capsys.readouterr().out
    assert said.count("HTTP 503") == 2
    assert f"patchlens publish push {tmp_path} user/name" in said


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", checkpoint_every=5, steps=15, d_sae=512)
    made = run(settings)
    made.start()
    batches = made.batches()
    for x in itertools.islice(batches, 5):
        made.step(x)
    (first,) = made.save()
    made.step(next(batches))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            NotSaved, match="could not write .*step_00000006.*What was saved before"
        ):
            made.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [folder.name for folder in first.parent.iterdir()] == ["step_00000005"]
    assert SparseAutoencoder.from_pretrained(settings.out).cfg.d_sae == 512
    again = run(config(tmp_path / "run", checkpoint_every=5, steps=15, d_sae=512, resume=True))
    assert again.restore() == []
    assert again.n_steps == 5


def test_unreadable_images_are_counted_for_all_to_see(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(number: int) -> Image.Image:
        if number in (5, 40):
            raise ImageError(f"{number}.png is cut off.")
        return picture(number)

    assert go(config(tmp_path), ImageSource("squares", load))
    assert json.loads((tmp_path / "training.json").read_text())["unreadable_images"] == 2
    assert "2 unreadable images were replaced by others" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_written_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    assert go(config(tmp_path, checkpoint_every=10))
    said = capsys.readouterr()
    assert (said.out + said.err).count("No space left on device") == 2
    assert "Training goes on." in said.out + said.err
    assert SparseAutoencoder.from_pretrained(tmp_path).cfg.d_sae == 64


@pytest.mark.parametrize("architecture", ["relu", "jumprelu"])
def test_dense_losses_in_bfloat16_stay_near(architecture: str) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        made = run(config(arch=architecture, precision=precision, ghost=True, aux=0.1))
        made.start()
        for x in itertools.islice(made.batches(), 5):
            outs = made.step(x)
        losses.append(made.progress(x, outs)[0].loss)
        assert made.trainers[0].weights.W_dec.dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_bfloat16_choice_says_how_often_it_differs(tmp_path: Path) -> None:
    assert go(config(tmp_path, select_dtype="bfloat16"))
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert all(0 <= line["selection_differs"] < 0.2 for line in lines)
