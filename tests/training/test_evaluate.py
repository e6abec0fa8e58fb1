"""The figures that evaluate.py prints, against the same figures computed densely by hand."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sae.backbones import Backbone
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.storage import write_sealed
from tests.tiny_models import tiny
from tests.training.training_parts import picture, pictures
from training import extract, train
from training.evaluate import evaluate, main
from training.evaluation import holdout
from training.evaluation.baselines import Baselines
from training.evaluation.holdout import what_is_held_out
from training.evaluation.measure import measure
from training.evaluation.zero_shot import class_features


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("clip").save(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures in two classes."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(40):
        folder = root / ("red_cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        picture(number).save(folder / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def sae(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random topk SAE, unit rows."""
    out = tmp_path_factory.mktemp("sae")
    cfg = SAEConfig("topk", 32, 48, BackboneRef(str(clip), 1), k=5)
    made, generator = SparseAutoencoder(cfg), torch.Generator().manual_seed(0)
    with torch.no_grad():
        rows = torch.randn(48, 32, generator=generator)
        made.W_dec.copy_(rows / rows.norm(dim=1, keepdim=True))
        made.W_enc.copy_(made.W_dec.t())
    made.save_pretrained(out)
    return out


@torch.no_grad()
def test_the_figures_are_those_of_a_dense_computation(sae: Path, clip: Path) -> None:
    made, backbone = SparseAutoencoder.from_pretrained(sae), Backbone.from_pretrained(clip)
    x = backbone.activations([picture(n) for n in range(12)], 1)
    (found,) = measure([made], backbone, pictures(12), image_batch=5)
    latents, x_hat = made.encode(x), made(x)
    for kind, part in (("all", slice(None)), ("cls", slice(0, 1)), ("patches", slice(1, None))):
        y = x[:, part].reshape(-1, 32).double()
        error = (y - x_hat[:, part].reshape(-1, 32)).square().sum()
        fvu = float(error / (y - y.mean(0)).square().sum())
        assert found.by_kind[kind].fvu == pytest.approx(fvu, rel=1e-4)
        active = latents[:, part].reshape(-1, 48) > 0
        assert found.by_kind[kind].l0 == pytest.approx(float(active.sum(1).double().mean()))
        dead = float((~active.any(0)).double().mean())
        assert found.by_kind[kind].dead_fraction == pytest.approx(dead)
    frequency = (latents.reshape(-1, 48) > 0).double().mean(0)
    assert found.dense_fraction == pytest.approx(float((frequency > 0.1).double().mean()))
    assert found.rare_fraction == 0
    assert found.n_images == 12


def test_baselines_keep_as_many_numbers_as_the_sae() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    fit, x = (torch.randn(n, 6, generator=generator) @ mixing + 3 for n in (500, 300))
    baselines = Baselines(fit)
    baselines.update(x[:100].view(10, 10, 6))
    baselines.update(x[100:].view(20, 10, 6))
    found = baselines.at(2.2)
    centre = fit.mean(0)
    _, _, directions = torch.linalg.svd(fit - centre)
    kept = (x - centre) @ directions[:2].T @ directions[:2] + centre
    spread = (x - x.mean(0)).square().sum()
    assert found["k"] == 2
    assert found["pca_fvu"] == pytest.approx(float((x - kept).square().sum() / spread), rel=1e-4)
    away = (x - centre).abs()
    small = away.sort(dim=1).values[:, :4].square().sum()
    assert found["raw_neurons_fvu"] == pytest.approx(float(small / spread), rel=1e-4)
    by = baselines.reconstructions(2.2)
    torch.testing.assert_close(by["pca"](x), kept, rtol=1e-4, atol=1e-4)
    assert float((x - by["raw_neurons"](x)).square().sum()) == pytest.approx(float(small), rel=1e-4)


def test_the_command_prints_json(
    sae: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--sae", str(sae), "--data", str(photos), "--n-images", "30"])
    found = json.loads(capsys.readouterr().out)
    assert (found["n_images"], found["n_unreadable"]) == (30, 0)
    assert found["n_tokens"] == 30 * 17
    assert "take care that it never saw them" in found["held_out"]
    assert found["by_token_kind"].keys() == {"all", "cls", "patches"}
    assert found["l0"] == pytest.approx(5, abs=0.1)
    assert 0 < found["baselines"]["pca_fvu"] < found["baselines"]["raw_neurons_fvu"] < 1
    shot = found["zero_shot"]
    assert (shot["n_classes"], shot["n_images"]) == (2, 30)
    assert shot["accuracy"].keys() == {"original", "all", "cls"}
    assert shot["baselines"].keys() == {"pca", "raw_neurons"}
    assert shot["baselines"]["pca"].keys() == {"all", "cls"}


def test_broken_pictures_are_counted(
    sae: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    for path in sorted(data.rglob("*.png"))[:3]:
        path.write_bytes(path.read_bytes()[:60])
    main(["--sae", str(sae), "--data", str(data)])
    found = json.loads(capsys.readouterr().out)
    assert (found["n_images"], found["n_unreadable"]) == (37, 3)


def test_zero_shot_with_reconstructions_is_that_of_an_edited_forward(
    sae: Path, photos: Path, clip: Path
) -> None:
    made, backbone = SparseAutoencoder.from_pretrained(sae), Backbone.from_pretrained(clip)
    text = class_features(backbone, ["dog", "red_cat"])
    images = [picture(n) for n in range(40)]
    truth = torch.tensor([1 - n % 2 for n in range(40)])
    found = evaluate(str(sae), str(photos))["zero_shot"]["accuracy"]
    with torch.no_grad(), backbone.edit(1, made):
        everything = backbone.image_features(images)
    plain = backbone.image_features(images)
    assert found["original"] == float(((plain @ text.T).argmax(1) == truth).double().mean())
    right = float(((everything @ text.T).argmax(1) == truth).double().mean())
    assert found["all"] == pytest.approx(right)


def test_only_held_out_images_are_measured(sae: Path, photos: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    SparseAutoencoder.from_pretrained(sae).save_pretrained(trained)
    record = {"seed": 0, "options": {"data": str(photos)}}
    write_sealed(trained / "training.json", record)
    source, held_out, why = what_is_held_out(str(trained), str(photos), 512)
    assert len(held_out.numbers) == 2
    assert not set(held_out.numbers) & set(source.numbers)
    assert "never used in training" in why
    with pytest.raises(ValueError, match="lie within each other"):
        what_is_held_out(str(trained), str(photos / "dog"), 512)
    other = tmp_path / "other"
    other.mkdir()
    for number in range(3):
        picture(100 + number).save(other / f"{number}.png")
    source, held_out, why = what_is_held_out(str(trained), str(other), 512)
    assert (len(source.numbers), len(held_out.numbers)) == (38, 3)
    assert "not what the SAE was trained on" in why

    one = {"origin": {"data": str(photos), "held_out": 1}}
    write_sealed(trained / "training.json", record | one)
    _, held_out, _ = what_is_held_out(str(trained), str(photos), 512)
    assert len(held_out.numbers) == 1
    gone = {"origin": {"data": str(tmp_path / "gone"), "held_out": 4}}
    write_sealed(trained / "training.json", record | gone)
    _, _, why = what_is_held_out(str(trained), str(other), 512)
    assert "gone is not at hand, so take care" in why


@pytest.mark.parametrize(
    ("data", "trained", "shared"),
    [
        ("hf:a/b", "hf:a/b:train", "same"),
        ("hf:a/b:test", "hf:a/b", "apart"),
        ("hf:a/b:train[:10%]", "hf:a/b", "overlap"),
        ("hf:a/b:train[90%:]", "hf:a/b:train[:90%]", "apart"),
        ("hf:a/b:train+test", "hf:a/b:test", "overlap"),
        ("shards/a-{0..2}.tar", "shards", "same"),
        ("shards/a-1.tar", "shards/a-{0..1}.tar", "overlap"),
        ("shards/a-2.tar", "shards/a-{0..1}.tar", "apart"),
        ("shards", "", "apart"),
        ("shards", "gone/a-{0..1}.tar", "apart"),
    ],
)
def test_data_that_may_share_images_is_known(
    data: str, trained: str, shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    for number in range(3):
        (tmp_path / "shards" / f"a-{number}.tar").touch()
    assert holdout._same(data, trained) == (shared == "same")
    assert holdout._overlap(data, trained) == (shared != "apart")


def test_an_sae_trained_from_a_store_is_held_to_the_images_behind_it(
    photos: Path, clip: Path, tmp_path: Path
) -> None:
    line = f"--backbone {clip} --layer 1 --data {photos} --threads 1 --out"
    extract.main([*line.split(), str(tmp_path / "store")])
    extract.main([*line.split(), str(tmp_path / "fewer"), "--eval-images", "1"])
    options = "--steps 4 --batch-size 64 --buffer 2 --d-sae 64 --k 4 --threads 1"
    words = ["--backbone", str(clip), "--layer", "1", *options.split()]
    train.main([*words, "--data", str(tmp_path / "fewer"), "--out", str(tmp_path / "sae")])
    record = json.loads((tmp_path / "sae" / "training.json").read_text())
    assert record["origin"] == {"data": str(photos), "held_out": 1}
    trained = str(tmp_path / "sae")
    with pytest.raises(ValueError, match=f"holds out 2 images, .* only 1, .* give --data {photos}"):
        what_is_held_out(trained, str(tmp_path / "store"), 512)
    with pytest.raises(ValueError, match="lie within each other"):
        what_is_held_out(trained, str(photos / "dog"), 512)
    kept = []
    for data in (photos, tmp_path / "fewer"):
        found = evaluate(trained, str(data))
        assert (found["n_images"], found["held_out"].endswith("never used in training")) == (
            1,
            True,
        )
        assert (
            "38 images" in found["baselines"]["fitted_on"]
            or "39" in found["baselines"]["fitted_on"]
        )
        kept.append(found["fvu"])
    assert kept[0] == pytest.approx(kept[1], rel=1e-3)


def test_what_cannot_be_measured_is_one_line(sae: Path, photos: Path, tmp_path: Path) -> None:
    for words, message in (
        (["--sae", str(tmp_path / "none"), "--data", str(photos)], "error: .*none"),
        (["--sae", str(sae), "--data", str(tmp_path / "none")], "error: --data .*no such folder"),
        (["--sae", str(sae), "--data", str(photos), "--backbone", "bundled"], "width 128"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(words)
