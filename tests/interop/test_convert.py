"""The converter, the writers, and what is refused although it is whole."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from sae import interop
from sae.errors import ArtifactError
from sae.interop import Hints, visaebench
from sae.interop.__main__ import main
from sae.interop.source import read_norm
from sae.model import SparseAutoencoder
from sae.world.scenes import Scene, SceneObject, compose, kind_names
from tests.interop import published
from tests.interop.published import PUBLISHED, D, as_json, overcomplete_family
from tests.local_hub import LocalHub, using
from tests.tiny_saes import ARCHITECTURES, tiny_sae

X = torch.randn(64, 16, generator=torch.Generator().manual_seed(2)) * 2


def arguments(case: str, folder: Path) -> list[str]:
    made = PUBLISHED[case][1](folder)
    words = [str(made.source), "--to", str(folder / "out")]
    for name in ("backbone", "layer", "tokens", "k"):
        if (value := getattr(made.hints, name)) is not None:
            words += [f"--{name}", str(value)]
    return words


@pytest.mark.parametrize(
    "case", ["saev old", "saelens gated", "visaebench batchtopk", "prisma topk"]
)
def test_a_conversion_reports_and_checks_itself(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(case, tmp_path)) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"format      {PUBLISHED[case][0]}: ")
    for word in ("SAE ", "activations ", "found ", "written ", "self-check  passed"):
        assert f"\n{word}" in said
    made = PUBLISHED[case][1](tmp_path)
    x = torch.randn(20, D)
    sae = SparseAutoencoder.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-4, rtol=1e-4)
    assert "source" in json.loads((tmp_path / "out" / "training.json").read_text())
    with pytest.raises(
        SystemExit, match="error: "
    ):  # a folder that holds an SAE is not written over
        main(arguments(case, tmp_path))


@pytest.mark.usefixtures("plain_stack")
def test_from_other_is_the_same_in_memory(tmp_path: Path) -> None:
    made = PUBLISHED["clipscope"][1](tmp_path)
    with pytest.warns(UserWarning, match="1200013184.pt: assumed backbone laion/CLIP") as told:
        sae = SparseAutoencoder.from_other(made.source)
    assert told[0].filename == __file__
    assert sae.cfg.negative == "keep"
    x = torch.randn(9, D)
    torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-5, rtol=1e-5)


def test_a_wrong_fold_fails_the_self_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(sae: object, backbone: object) -> object:
        cfg, tensors = interop.foreign.fold(sae, backbone)
        return cfg, {**tensors, "b_enc": tensors["b_enc"] + 0.5}

    monkeypatch.setattr(interop, "fold", wrong)
    with pytest.raises(SystemExit, match="self-check FAILED against the format's own equations"):
        main(arguments("patchsae", tmp_path))
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out").exists(), "a reading that fails is not written"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Pictures of the bundled world."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for n, kind in enumerate(kind_names()[:6]):
        objects = (SceneObject(kind, x=30 + 8 * n), SceneObject("cat", y=20, size="small"))
        image = compose(Scene("grass", objects, seed=n)).image
        Image.fromarray(image).save(folder / f"{n}.png")
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ([], None),
        (["--layer", "0"], "evidence FAILED on .* layer 0: FVU"),
        (["--norm", "norm.json"], "evidence FAILED on .* expected FVU below 0.9"),
    ],
)
def test_real_activations_are_evidence(
    change: list[str],
    words: str | None,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A right reading rebuilds the backbone's activations; of another layer or scaling it does not."""
    SparseAutoencoder.from_pretrained("bundled").save_pretrained(tmp_path / "ours")
    assert main([str(tmp_path / "ours"), "--to", str(tmp_path / "v"), "--write", "visaebench"]) == 0
    assert "not compared with real activations: give --images" in capsys.readouterr().out
    d_in = SparseAutoencoder.from_pretrained("bundled").cfg.d_in
    as_json(tmp_path / "norm.json", {"mean": [0.0] * d_in, "std": 8.0})
    change = [str(tmp_path / word) if word.endswith(".json") else word for word in change]
    out = tmp_path / "out"
    words_given = [
        str(tmp_path / "v"),
        "--to",
        str(out),
        "--tokens",
        "all",
        "--images",
        str(scenes),
    ]
    words_given += ["--backbone", "bundled", "--images", str(scenes)]
    if words is None:
        assert main([*words_given, *change]) == 0
        said = capsys.readouterr().out
        assert re.search(r"\nevidence    on [\d,]+ tokens of bundled, layer 3: FVU 0\.", said)
    else:
        with pytest.raises(SystemExit, match=words):
            main([*words_given, *change])
        assert not out.exists()


def test_an_sae_of_another_width_is_no_sae_of_this_backbone(scenes: Path, tmp_path: Path) -> None:
    made = PUBLISHED["saev Relu"][1](tmp_path)
    words = [str(made.source), "--to", str(tmp_path / "out"), "--images", str(scenes)]
    with pytest.raises(SystemExit, match=f"width 128, this SAE reads {D}"):
        main([*words, "--backbone", "bundled", "--layer", "3", "--tokens", "all"])
    assert not (tmp_path / "out").exists()


def test_the_list_and_bad_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in interop.READERS)
    assert "patchsae-vit-b16" in said
    assert "not read: SAELens matching_pursuit, " in said
    assert "covariance_whitening" in said
    assert main(["somewhere"]) == 2
    with pytest.raises(SystemExit, match="error: .*is not a valid Hub id"):
        main(["/nowhere/at/all", "--to", "/tmp/x"])


def test_a_repository_of_another_library(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    made = PUBLISHED["sparsify"][1](tmp_path / "made")
    with LocalHub() as hub, using(hub, tmp_path / "cache"):
        hub.add_folder("a/b", tmp_path / "made")
        words = ["a/b", "--subfolder", "layers.10", "--backbone", "bundled"]
        assert main([*words, "--to", str(tmp_path / "out")]) == 0
    sae = SparseAutoencoder.from_pretrained(tmp_path / "out")
    x = torch.randn(9, D)
    torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-4, rtol=1e-4)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["source"] == "a/b"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens_words_come_back(architecture: str, tmp_path: Path) -> None:
    sae = tiny_sae(architecture)
    sae.save_pretrained(tmp_path)
    again = SparseAutoencoder.from_other(tmp_path, format="saelens")
    torch.testing.assert_close(again.encode(X), sae.encode(X))
    assert (again.cfg.backbone.id, again.cfg.backbone.layer) == ("bundled", 4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_visaebench_written_runs_as_visaebench_runs_it(architecture: str, tmp_path: Path) -> None:
    sae = tiny_sae(architecture)
    sae.save_pretrained(tmp_path / "ours")
    words = [str(tmp_path / "ours"), "--to", str(tmp_path / "out"), "--write", "visaebench"]
    assert main(words) == 0
    w = load_file(tmp_path / "out" / "model.safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    codes = F.relu(X @ w["encoder.weight"].T + w["encoder.bias"])
    if config["activation"] == "topk":
        codes = published.topk(codes, config["k"])
    elif config["activation"] == "batchtopk":
        codes = codes * (codes >= config["threshold"])
    else:
        codes = codes * (codes > w["jump_thresholds"])
    torch.testing.assert_close(codes, sae.encode(X), atol=1e-4, rtol=1e-4)
    x_hat = codes @ w["decoder.weight"] + w["decoder.bias"]
    torch.testing.assert_close(x_hat, sae(X), atol=1e-3, rtol=1e-4)
    with pytest.warns(UserWarning, match="assumed raw activations"):
        again = SparseAutoencoder.from_other(tmp_path / "out", backbone="bundled", tokens="all")
    torch.testing.assert_close(again.encode(X), sae.encode(X), atol=1e-4, rtol=1e-4)


def test_what_visaebench_cannot_run_is_not_written(tmp_path: Path) -> None:
    made = PUBLISHED["clipscope"][1](tmp_path)
    found = interop.read(made.source)
    with pytest.raises(ValueError, match="visaebench has no SAE with negative='keep'"):
        visaebench.write(tmp_path / "out", found.cfg, found.tensors)


def test_words_that_saelens_lacks_are_not_written(tmp_path: Path) -> None:
    made = PUBLISHED["clipscope"][1](tmp_path)
    found = interop.read(made.source)
    SparseAutoencoder._from_weights(found.cfg, found.tensors).save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "cfg.json").exists()


def change_config(name: str, **values: object) -> object:
    def change(folder: Path) -> None:
        path = next(folder.rglob(name))
        content = json.loads(path.read_text())
        content.get("trainer", content).update(values)
        as_json(path, content)

    return change


REFUSED = {
    (
        "saelens standard",
        change_config("cfg.json", architecture="matching_pursuit"),
    ): "one of standard.*each a single linear encoding: it chooses latents one after the other",
    (
        "saelens standard",
        change_config("cfg.json", normalize_activations="covariance_whitening"),
    ): "mean and matrix are not in these files. SAELens folds them into the weights",
    ("saelens standard", change_config("cfg.json", architecture="transcoder")): "rebuilds another",
    ("saelens standard", change_config("cfg.json", reshape_activations="hook_z")): "hook_z",
    ("saelens standard", change_config("cfg.json", metadata={})): "6 or newer",
    ("saelens topk", change_config("cfg.json", k="5")): "k = '5'; expected int",
    ("saelens topk", change_config("cfg.json", k=500)): "k=500",
    ("sparsify", change_config("cfg.json", activation="groupmax")): "groupmax chooses one",
    ("sparsify", change_config("cfg.json", transcode=True)): "rebuilds its own input",
    ("fastsae", change_config("config.json", activation_name="gelu")): "relu and vanilla",
    ("prisma relu", change_config("config.json", layer_subtype="hook_mlp_out")): "residual stream",
    ("prisma relu", change_config("config.json", activation_fn_str="tanh-relu")): "relu or topk",
    (
        "prisma gated",
        change_config("config.json", activation_fn_str="topk", activation_fn_kwargs={"k": 5}),
    ): "a gated SAE with activation 'topk'; expected relu: with top-k",
    (
        "saev old",
        change_config("config.json", scale_mean=True),
    ): "scale_mean True.*not in these files. Give them: --norm FILE",
    (
        "saev told",
        change_config("config.json", train_data={"tokens": "register"}),
    ): "tokens 'register'; expected one of content, patches",
    (
        "saelens whitened",
        change_config("activation_scaler.json", has_whitening=False),
    ): "mean and matrix are not in these files",
    (
        "saelens matryoshka_batchtopk",
        change_config("cfg.json", matryoshka_widths=[20, 5]),
    ): "matryoshka_widths that do not grow",
    ("visaebench topk", change_config("config.json", hidden_dim=41)): "hidden_dim = 41",
    (
        "dictionary_learning BatchTopKSAE",
        change_config("config.json", dict_class="JumpReluAutoEncoder"),
    ): "weights of it",
}


@pytest.mark.parametrize(("case", "change"), list(REFUSED))
def test_whole_but_not_expressible(case: str, change: object, tmp_path: Path) -> None:
    made = PUBLISHED[case][1](tmp_path)
    if case == "fastsae":
        (tmp_path / "backbone" / "config.json").rename(tmp_path / "backbone" / "place.json")
    change(tmp_path)
    hints = Hints(made.hints.format, "some/backbone", made.hints.layer, "all", made.hints.k)
    with pytest.raises(ArtifactError, match=REFUSED[case, change]):
        interop.read(made.source, hints)


@pytest.mark.parametrize("name", ["norm.json", "norm.safetensors", "norm.pt"])
def test_the_scaling_of_inputs_can_be_given(name: str, tmp_path: Path) -> None:
    made = PUBLISHED["saev old"][1](tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    mean, std = torch.tensor(content["scale_mean"]), content["scale_norm"]
    as_json(tmp_path / "config.json", {"data": {"scale_mean": True, "scale_norm": True}})
    if name.endswith(".json"):
        as_json(tmp_path / name, {"mean": mean.tolist(), "std": std})
    elif name.endswith(".pt"):
        (tmp_path / "norm").mkdir()
        torch.save({"mean": mean, "std": torch.tensor(std)}, tmp_path / "norm" / name)
    else:
        save_file({"mean": mean, "std": torch.tensor([std])}, tmp_path / name)
    given = next(tmp_path.rglob(name))
    words = ["--backbone", "some/backbone", "--layer", "3", "--norm", str(given)]
    out = tmp_path / "out"
    assert main([str(tmp_path / "sae.pt"), "--to", str(out), *words]) == 0
    x = torch.randn(20, D)
    sae = SparseAutoencoder.from_pretrained(out)
    torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-4, rtol=1e-4)
    for norm in (given, (mean, std)):
        again = SparseAutoencoder.from_other(
            tmp_path / "sae.pt", backbone="a/b", layer=3, tokens="all", norm=norm
        )
        assert torch.equal(again.W_enc, sae.W_enc)


@pytest.mark.parametrize("content", [{}, {"mean": [1.0]}, {"mean": [1.0], "std": 0}, {"mean": 3}])
def test_a_scaling_without_mean_or_size_is_refused(content: dict, tmp_path: Path) -> None:
    as_json(tmp_path / "norm.json", content)
    with pytest.raises(ArtifactError, match=r"norm.json: found (no mean and std|mean or std)"):
        read_norm(tmp_path / "norm.json")


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("QSAE", {}, "an overcomplete 'QSAE'; expected one of SAE, TopKSAE"),
        ("BatchTopKSAE", {"running_threshold": None}, "without a running_threshold"),
    ],
)
def test_classes_of_overcomplete_that_are_not_expressible(
    kind: str, change: dict, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def changed(module: Any, *args: Any) -> None:
        module.__dict__.update(change)
        save(module, *args)

    monkeypatch.setattr(torch, "save", changed)
    made = overcomplete_family.of_class(kind)(tmp_path)
    with pytest.raises(ArtifactError, match=words):
        interop.read(made.source, made.hints)


WRONG = {
    "b_dec is subtracted, or not": lambda sae: setattr(sae, "subtract", not sae.subtract),
    "negative values": lambda sae: setattr(
        sae, "negative", "rank" if sae.negative != "rank" else "zero"
    ),
    "the norm of tokens": lambda sae: setattr(
        sae, "input_norm", "layer_norm" if sae.input_norm == "none" else "none"
    ),
    "a decoder twice as large": lambda sae: setattr(sae, "W_dec", sae.W_dec * 2),
    "latents twice as large": lambda sae: (
        setattr(sae, "W_dec", sae.W_dec / 2),
        setattr(sae, "W_enc", sae.W_enc * 2),
        setattr(sae, "b_enc", sae.b_enc * 2),
    ),
    "one latent more": lambda sae: setattr(sae, "k", sae.k + 1),
    "a threshold a tenth higher": lambda sae: setattr(sae, "threshold", sae.threshold * 1.1),
    "a scaling": lambda sae: setattr(sae, "scale", sae.scale * 1.5),
}
SAYS = {
    "negative values": lambda sae: sae.architecture == "topk",
    "one latent more": lambda sae: sae.architecture == "topk",
    "a threshold a tenth higher": lambda sae: _positive(sae.threshold),
    "latents twice as large": lambda sae: not sae.by_decoder_norm,
    "b_dec is subtracted, or not": lambda sae: bool(sae.b_dec.any()),
}
"""Where a mistake makes a difference at all; everywhere else it always does."""


def _positive(threshold: Any) -> bool:
    return threshold is not None and bool((torch.as_tensor(threshold) > 0).any())


def complaint(read: Callable[[], object]) -> str:
    try:
        read()
    except ArtifactError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("mistake", WRONG)
def test_a_reading_that_computes_something_else_is_refused(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold, tried = interop.fold, []

    def misread(sae: Any, backbone: Any) -> Any:
        if SAYS.get(mistake, bool)(sae):
            WRONG[mistake](sae)
            tried.append(case)
        return fold(sae, backbone)

    monkeypatch.setattr(interop, "fold", misread)
    passed = []
    for case in PUBLISHED:
        folder = tmp_path / case.replace(" ", "_")
        folder.mkdir()
        made = PUBLISHED[case][1](folder)
        n = len(tried)
        said = complaint(lambda made=made: interop.read(made.source, made.hints))
        passed += [case] if len(tried) > n and "self-check FAILED" not in said else []
    assert len(tried) > 5
    assert passed == []


def test_what_the_files_do_not_say_is_asked_for(tmp_path: Path) -> None:
    made = PUBLISHED["saev Relu"][1](tmp_path)
    with pytest.raises(ValueError, match="does not say which backbone .*give --backbone ID"):
        interop.read(made.source)
    with pytest.raises(ValueError, match="does not say which layer"):
        interop.read(made.source, Hints(backbone="a/b"))
    made = PUBLISHED["overcomplete plain"][1](tmp_path)
    with pytest.raises(ArtifactError, match="does not say k"):
        interop.read(made.source, Hints(backbone="a/b", layer=0))
    with pytest.raises(ArtifactError, match="no format that is known"):
        interop.detect(Path(__file__).parent)


def test_sae_lens_itself_opens_what_is_written(tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    for architecture in ARCHITECTURES:
        sae = tiny_sae(architecture)
        sae.save_pretrained(tmp_path / architecture)
        other = sae_lens.SAE.load_from_disk(tmp_path / architecture)
        torch.testing.assert_close(other.encode(X), sae.encode(X), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(other(X), sae(X), atol=1e-3, rtol=1e-4)
