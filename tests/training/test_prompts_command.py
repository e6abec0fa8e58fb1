"""training/prompts.py and training/compare.py on a folder of pictures and a tiny CLIP."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from sae.adaptation.files import load_head
from sae.adaptation.heads import HEADS, POSITIONS, LinearHead, MapleHead, register_head
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from tests.adaptation.small import small_lens
from tests.tiny_models import tiny
from training import compare, prompts
from training.launch import StopRequest
from training.tasks import pairs
from training.tasks.data import FolderTask, open_task
from training.tasks.figures import seeds_table
from training.tasks.fitting import FitOptions, fit, learning_rate

COLOURS = {
    "cat": (220, 30, 30),
    "dog": (30, 30, 220),
    "red_animal": (30, 220, 30),
    "two": (200,) * 3,
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny("clip").save(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four classes of six noisy pictures, each of a colour."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(6):
            pixels = rng.normal(colour, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def templates(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "templates.txt"
    path.write_text("a photo of {}\n\nthe {}\n", encoding="utf-8")
    return path


def words(clip, folder, templates, out, *more):
    common = f"--backbone {clip} --data {folder} --templates {templates} --task colours --out {out}"
    return [*common.split(), "--threads", "1", "--shots", "4", *map(str, more)]


@pytest.fixture
def no_tail(monkeypatch):
    """The tiny tokenizer knows no full stop."""
    monkeypatch.setattr(FolderTask, "tail", "")


@pytest.mark.usefixtures("no_tail")
def test_heads_are_trained_measured_and_compared(clip, folder, templates, tmp_path):
    for method in ("coop", "vpt", "maple", "linear"):
        options = ["--method", method, "--epochs", 8, "--seeds", 3, 4, "--n-ctx", 2]
        prompts.main(words(clip, folder, templates, tmp_path, *options))
        head = tmp_path / "heads" / "colours" / method
        stored = load_head(head)
        assert stored.head.kind == method
        assert stored.head.class_names == ("cat", "dog")
        assert load_head(head / "seed-4").head.kind == method
        assert not list(head.glob("**/checkpoint*"))
        metrics = json.loads((head / "metrics.json").read_text())
        assert [row["seed"] for row in metrics["seeds"]] == [3, 4]
        assert metrics["command"].startswith("accelerate launch training/prompts.py --backbone")
        assert ("novel" in metrics["accuracy"]) == (method != "linear")
        if method == "linear":
            assert metrics["accuracy"]["base"]["mean"] == 1.0
    changed = ["--method", "vpt", "--epochs", 9, "--seeds", 3, "--n-ctx", 2]
    with pytest.raises(SystemExit, match="trained with another epochs"):
        prompts.main(words(clip, folder, templates, tmp_path, *changed))
    parts = ClipParts(Backbone.from_pretrained(clip))
    small_lens(parts).sae.save_pretrained(tmp_path / "sae")
    heads = ["zero_shot", tmp_path / "heads/colours/vpt", tmp_path / "heads/colours/linear"]
    sizes = ["--n-test", "4", "--n-masks", "4", "--n-curves", "2", "--shots", "2"]
    common = ["--backbone", clip, "--sae", tmp_path / "sae", "--data", folder, "--task", "colours"]
    common += ["--heads", *heads, "--out", tmp_path / "out", *sizes]
    compare.main([str(word) for word in [*common, "--templates", templates]])
    for pair in ("zero_shot-vpt", "zero_shot-linear"):
        made = tmp_path / "out" / "colours" / pair
        result = json.loads((made / "compare.json").read_text())
        assert ("novel" in result) == (pair == "zero_shot-vpt")
        ks = result["masking"]["zero_shot"]["ks"]
        assert ks[-1] == 64
        assert len(result["masking"]["zero_shot"]["curves"]["oracle/none/on"]) == len(ks)
        plain = result["masking"]["zero_shot"]["plain"]
        assert result["masking"]["zero_shot"]["curves"]["oracle/per_token/on"][-1] == plain
        for name in ("accuracy", "scatter", "masking", "faithfulness"):
            with Image.open(made / f"{name}.png") as picture:
                assert min(picture.size) > 100
        assert "an oracle" in (made / "report.md").read_text()
    made = (tmp_path / "out" / "table1.md").read_text()
    assert "| colours | zero_shot → vpt |" in made
    again = [str(word) for word in [*common, "--templates", templates]]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pairs, "compare", None)  # what lies there is not measured again
        compare.main(again)
        assert (tmp_path / "out" / "table1.md").read_text() == made
        with pytest.raises(TypeError):
            compare.main([*again, "--overwrite"])


def test_a_head_of_ones_own_is_trained_by_its_name(clip, folder, templates, tmp_path, request):
    """What is registered is a --method, with its own rate and epochs."""

    @register_head
    class OwnHead(LinearHead):
        kind, label, learning_rate, epochs = "own", "My own", 0.05, 3

    request.addfinalizer(lambda: HEADS.pop("own"))
    prompts.main(words(clip, folder, templates, tmp_path, "--method", "own"))
    made = tmp_path / "heads" / "colours" / "own"
    assert isinstance(load_head(made).head, OwnHead)
    options = json.loads((made / "metrics.json").read_text())["options"]
    assert (options["epochs"], options["lr"]) == (3, 0.05)


def test_the_help_says_what_the_table_of_heads_says(capsys, request):
    @register_head
    class OwnHead(MapleHead):
        kind, label, usual_n_ctx = "own", "My own", 7

    request.addfinalizer(lambda: HEADS.pop("own"))
    with pytest.raises(SystemExit):
        prompts.parse(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "learned tokens (default: coop 4, vpt 4, maple 2, own 7)" in said
    assert f"--position {{{','.join(POSITIONS)}}}" in said


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_head_says_how_much_of_the_weight_decay_it_takes(folder, tmp_path, monkeypatch, share):
    monkeypatch.setattr(LinearHead, "weight_decay_share", share)
    plain, _ = fitted(folder, tmp_path / "plain")
    decayed, _ = fitted(folder, tmp_path / "decayed", weight_decay=0.5)
    assert torch.equal(plain.weight, decayed.weight) == (share == 0)


@pytest.mark.usefixtures("no_tail")
def test_a_stopped_run_goes_on_to_the_same_bits(folder, tmp_path):
    made = tiny("clip")
    made.model.requires_grad_(False)
    parts = ClipParts(Backbone.from_model(made.model, made.image_processor, made.tokenizer))
    data = open_task("colours", str(folder), ("the {}",)).few_shot("base", 4, 0)
    options = FitOptions(epochs=4, lr=0.05, batch=3, weight_decay=0.01, seed=7)
    accelerator = Accelerator(cpu=True)

    def fresh() -> MapleHead:
        torch.manual_seed(0)
        return MapleHead(("cat", "dog"), d_text=32, d_vision=32, depth=2, tail="")

    whole, stop = fresh(), StopRequest()
    losses = fit(whole, parts, data, options, accelerator, stop, tmp_path / "whole")
    assert losses[-1] < losses[0]
    stop.requested = True
    path = tmp_path / "parts"
    for _ in range(4):
        head = fresh()
        assert len(fit(head, parts, data, options, accelerator, stop, path)) == 1
    for name, value in whole.state_dict().items():
        assert torch.equal(value, head.state_dict()[name]), name


def fitted(folder, checkpoint, *, stop=None, weight_decay=0.0):
    """A linear head after four epochs, and its losses."""
    made = tiny("clip")
    made.model.requires_grad_(False)
    parts = ClipParts(Backbone.from_model(made.model, made.image_processor, made.tokenizer))
    data = open_task("colours", str(folder), ("the {}",)).few_shot("base", 2, 0)
    head = LinearHead(("cat", "dog"), d_proj=parts.d_proj)
    options = FitOptions(epochs=4, lr=0.01, batch=4, weight_decay=weight_decay, seed=0)
    losses = fit(
        head, parts, data, options, Accelerator(cpu=True), stop or StopRequest(), checkpoint
    )
    return head, losses


@pytest.mark.parametrize("place", [20, -20])
def test_a_damaged_checkpoint_is_told_and_training_begins_again(folder, tmp_path, capsys, place):
    straight, _ = fitted(folder, tmp_path / "straight.safetensors")
    stop = StopRequest()
    stop.requested = True
    fitted(folder, path := tmp_path / "stopped.safetensors", stop=stop)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    again, losses = fitted(folder, path)
    assert "The checkpoint is damaged, training begins again" in capsys.readouterr().out
    assert len(losses) == 4
    assert torch.equal(again.weight, straight.weight)


def test_a_loss_that_is_no_number_stops_and_names_the_rate(folder, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    stop = StopRequest()
    stop.requested = True
    fitted(folder, path, stop=stop)
    before = path.read_bytes()
    step = torch.optim.AdamW.step

    def diverge(optimizer, *args, **kwargs):
        step(optimizer, *args, **kwargs)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim.AdamW, "step", diverge)
    with pytest.raises(ValueError, match=r"NaN or infinite after epoch 2 .*smaller --lr than 0.01"):
        fitted(folder, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "vpt", "--shots", "9"], "more than class 'cat' has: 6 pictures"),
        (["--method", "vpt", "--depth", "7"], "more than the 3 blocks"),
        (["--method", "coop", "--data", "nowhere"], "is no folder"),
    ],
)
def test_what_cannot_work_is_said(clip, folder, templates, tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        prompts.main([*words(clip, folder, templates, tmp_path), *more])


def test_wrong_options_leave_with_status_two(tmp_path, capsys):
    start = ["--method", "coop", "--task", "fluent", "--out", str(tmp_path)]
    for wrong in (["--shots", "0"], ["--seeds", "1", "1"], ["--lr", "-1"], ["--method", "magic"]):
        with pytest.raises(SystemExit) as error:
            prompts.parse([*start, *wrong])
        assert error.value.code == 2
    with pytest.raises(SystemExit) as error:
        prompts.parse(["--method", "vpt"])
    assert error.value.code == 2
    assert prompts.parse(["--method", "vpt", "--data", "some/pets/"]).task == "pets"
    for wrong in (["zero_shot"], ["vpt", "vpt"]):
        with pytest.raises(SystemExit) as error:
            compare.parse(["--heads", *wrong, "--task", "fluent", "--out", str(tmp_path)])
        assert error.value.code == 2
    with pytest.raises(SystemExit, match="no bundled task"):
        prompts.main([*start, "--task", "magic", "--threads", "1"])
    capsys.readouterr()


def test_a_folder_needs_classes(tmp_path):
    with pytest.raises(ValueError, match="no folders with pictures"):
        open_task("x", str(tmp_path), ("the {}",))
    (tmp_path / "one").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "a.png")
    with pytest.raises(ValueError, match="with one class"):
        open_task("x", str(tmp_path), ("the {}",))


def test_train_and_test_folders_are_kept_apart(folder, tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for name in COLOURS:
            (tmp_path / part / name).symlink_to(folder / name)
    data = open_task("x", str(tmp_path), ("the {}",))
    assert (data.base, data.novel) == (("cat", "dog"), ("red animal", "two"))
    assert len(data.few_shot("base", 6, 0)) == 12
    assert all("test" in str(source) for source in data.test("base", 4, 0, 6).sources)
    apart = open_task("x", str(folder), ("the {}",))
    few, test = apart.few_shot("novel", 4, 1), apart.test("novel", 100, 1, 4)
    assert len(test) == 4
    assert not set(few.sources) & set(test.sources)
    assert apart.few_shot("novel", 4, 1).sources == few.sources


def test_rates_and_tables():
    assert learning_rate(1.0, 0.0) == pytest.approx(0.1)
    assert learning_rate(1.0, 0.5) == pytest.approx(0.5)
    assert learning_rate(1.0, 1.0) == pytest.approx(0.0)
    table = seeds_table([("t", "vpt", {"base": {"mean": 0.5, "std": 0.01}})])
    assert "| t | vpt | 50.0 ± 1.0 | – |" in table
