"""The world's trainers go on after a kill with the very same bits, and refuse what is another run."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.training_processes import CONTEXT, end
from training.world import clip, llava
from training.world.fit import CHECKPOINT, FitConfig, fit

CLIP, LLAVA = "clip", "llava"
WORDS = {
    CLIP: "--steps 6 --batch 4 --width 64 --layers 2 --workers 0 --device cpu --sparse-part 1",
    LLAVA: "--steps 6 --batch 2 --width 64 --layers 1 --workers 0 --device cpu",
}


def run(what: str, out: Path, *more: str, die: int | None = None, by: int = signal.SIGKILL) -> None:
    """A model's own training, saved every second step; `die`: the step in which a signal comes."""
    module = {CLIP: clip, LLAVA: llava}[what]
    owner, name = {CLIP: (clip.DenselySupervised, "losses"), LLAVA: (llava, "answer_loss")}[what]
    losses = getattr(owner, name)

    def dying(*given):
        dying.step += 1
        if dying.step == die:
            os.kill(os.getpid(), by)
        return losses(*given)

    dying.step = 0
    setattr(owner, name, dying)
    module.FitConfig = lambda **given: FitConfig(**given, save_every=2, log_every=1)
    clip.evaluate_clip = llava.evaluate = lambda *_all, **_more: {}
    module.main([*WORDS[what].split(), "--out", str(out), *more])


def run_apart(what: str, out: Path, *more: str, **moment: int) -> int:
    """The same in a process of its own; its exit status."""
    process = CONTEXT.Process(target=run, args=(what, out, *more), kwargs=moment)
    process.start()
    return end([process])[0]


@pytest.mark.slow
@pytest.mark.parametrize("what", [CLIP, LLAVA])
def test_a_killed_world_run_ends_with_the_same_bits(what: str, tmp_path: Path) -> None:
    straight, killed, stopped = (tmp_path / name for name in ("straight", "killed", "stopped"))
    assert run_apart(what, straight) == 0
    assert run_apart(what, killed, die=4) == -signal.SIGKILL
    assert (killed / CHECKPOINT).is_file()
    assert run_apart(what, killed) == 0
    assert run_apart(what, stopped, die=4, by=signal.SIGINT) == 130
    assert run_apart(what, stopped) == 0
    whole = load_file(straight / CHECKPOINT)
    for folder in (killed, stopped):
        after = load_file(folder / CHECKPOINT)
        assert after.keys() == whole.keys()
        assert all(torch.equal(after[name], whole[name]) for name in whole), folder
        lines = (folder / "curve.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for option, value in (("--lr", "0.5"), ("--steps", "8"), ("--batch", "8")):
        assert run_apart(what, killed, option, value) == 1, "another run in the same folder"


def trained(out: Path, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    given = {"steps": 4, "lr": 0.1, "warm_up": 2, "save_every": 2, "workers": 0}
    config = FitConfig(out, **{**given, **changes})
    fit(
        model,
        lambda step: {"x": torch.full((2, 3), float(step))},
        lambda batch, _step: {"loss": (model(batch["x"]).float() ** 2).mean()},
        config,
    )
    return model


@pytest.mark.parametrize(
    ("change", "value"),
    [("lr", 0.2), ("steps", 8), ("warm_up", 1), ("weight_decay", 0.1), ("about", {"width": 64})],
)
def test_other_settings_do_not_go_on(change: str, value: object, tmp_path: Path) -> None:
    trained(tmp_path)
    option = "width" if change == "about" else change.replace("_", "-")
    with pytest.raises(ValueError, match=f"holds a run with --{option} .*another --out"):
        trained(tmp_path, **{change: value})
    trained(tmp_path)


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    trained(tmp_path)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for content in (whole[:-3], whole[:-1] + bytes([whole[-1] ^ 64]), b"", b"{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be gone on from .*delete it to begin anew"):
            trained(tmp_path)


def test_a_loss_that_is_not_finite_stops_and_keeps_what_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    config = FitConfig(tmp_path, steps=4, save_every=2, workers=0)

    def make_batch(step: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((2, 3), float("nan") if step == 2 else 1.0)}

    def loss_of(batch: dict[str, torch.Tensor], _step: int) -> dict[str, torch.Tensor]:
        return {"loss": model(batch["x"]).float().mean()}

    with pytest.raises(ValueError, match="gradient of step 2 is nan.*Lower --lr"):
        fit(model, make_batch, loss_of, config)
    kept = load_file(tmp_path / CHECKPOINT)
    assert all(bool(tensor.isfinite().all()) for tensor in kept.values())
