"""Every preset against a Hub that holds a repository of exactly its layout, small and random."""

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from sae import hub, interop
from sae.errors import ArtifactError, ConfigError, HubError, HubFileNotFound, HubUnreachable
from sae.interop import READERS, presets
from sae.interop.__main__ import main
from sae.model import SparseAutoencoder
from sae.ui.options import load as load_app
from sae.ui.options import parse
from tests.interop import published
from tests.interop.published import PUBLISHED
from tests.local_hub import LocalHub, using

FOREIGN = [p for p in presets.table().values() if p.repo != "bundled"]
LOADED = [p for p in FOREIGN if p.format not in ("visaebench", "saev", "clipscope")]
LOADED += [presets.find(f"visaebench-{m}") for m in ("clip-vitb16-x8-k64", "deit-vitb16-x32-k256")]
LOADED += [presets.find(f"saev-dinov3-{m}") for m in ("vits16-l6", "vitl16-l23", "topk-vitl16-l13")]
LOADED += [presets.find(f"clipscope-l{layer}") for layer in (2, 22)]
"""All rows that were written singly, and the ends of the long families."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as local, using(local, tmp_path / "cache"):
        yield local


def upload(
    server: LocalHub, preset: presets.Preset, folder: Path, **changes: Any
) -> published.Published:
    """A repository as the preset's table says it is but for `changes` of its config."""
    folder.mkdir()
    if preset.format == "sae_for_vlm":
        kind = "BatchTopKSAE" if "batchtopk" in preset.name else "MatroyshkaBatchTopKSAE"
        made = published.dl(kind)(folder)
        config, weights = preset.files
        files = {config: folder / "config.json", weights: folder / "ae.pt"}
    elif preset.format in ("saev", "clipscope", "visaebench"):
        return _by_layer(server, preset, folder)
    elif preset.format == "fastsae":
        made = published.fastsae(folder)
        backbone = {"model_hf_name": preset.backbone, "hook_target_name": preset.hook, **changes}
        published.as_json(folder / "backbone" / "config.json", backbone)
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    else:
        made = published.prisma("relu")(folder)
        config = json.loads((folder / "config.json").read_text())
        config |= {"hook_point_layer": preset.layer}
        config |= {"model_name": preset.backbone.replace("hf-hub:", "open-clip:"), **changes}
        published.as_json(folder / "config.json", config)
        if preset.tokens == "patches":
            config = json.loads((folder / "config.json").read_text())
            published.as_json(folder / "config.json", {**config, "use_patches_only": True})
        files = {p.name: p for p in folder.iterdir() if p.is_file()}
    server.add(preset.repo, {name: path.read_bytes() for name, path in files.items()})
    return made


def _by_layer(server: LocalHub, preset: presets.Preset, folder: Path) -> published.Published:
    """Repositories of many SAEs, one of which is the preset; a file's place says which."""
    if preset.format == "clipscope":
        made = PUBLISHED["clipscope"][1](folder)
        data, place = made.source.read_bytes(), f"{preset.layer}_resid"
        files = {f"{place}/1200013184.pt": data, f"{place}/99.pt": b"an earlier one", "1.pt": b""}
    elif preset.format == "saev":
        made = PUBLISHED["saev Relu"][1](folder)
        data = (folder / "sae.pt").read_bytes()
        files = {f"layer_{preset.layer}/3zih0tpa/sae.pt": data, "layer_99/x/sae.pt": b"another"}
    else:
        made = PUBLISHED["visaebench topk"][1](folder)
        files = {f"{preset.source}/{p.name}": p.read_bytes() for p in folder.iterdir()}
        files["batchtopk_1x_k1/sae.pt"] = b"another"
    server.add(preset.repo, files)
    return made


def small(monkeypatch: pytest.MonkeyPatch, name: str) -> presets.Preset:
    """The preset of this name, of the size that `upload` makes."""
    preset = presets.find(name)
    d_sae = 36 if preset.format == "fastsae" else published.N
    made = dataclasses.replace(preset, d_in=published.D, d_sae=d_sae)
    monkeypatch.setitem(presets.table(), preset.name, made)
    return made


@pytest.mark.usefixtures("plain_stack")
@pytest.mark.parametrize("preset", LOADED, ids=lambda p: p.name)
def test_a_preset_loads(
    preset: presets.Preset, server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload(server, preset, tmp_path / "made")
    expected = f"an SAE from {preset.d_in} to {preset.d_sae} for preset {preset.name}"
    with pytest.raises(ArtifactError, match=f"expected {expected}"):
        SparseAutoencoder.from_pretrained(f"preset:{preset.name}")
    small(monkeypatch, preset.name)
    if preset.format == "saev":
        sae = SparseAutoencoder.from_pretrained(f"preset:{preset.name}")
    else:
        with pytest.warns(UserWarning, match=f"preset:{preset.name}: assumed ") as told:
            sae = SparseAutoencoder.from_pretrained(f"preset:{preset.name}")
        first = "SigLIP has no CLS token" in str(told[0].message)
        assert first == ("siglip" in preset.name)
        assert told[0].filename == __file__
    where = sae.cfg.backbone
    assert (where.id, where.layer, where.tokens) == (preset.backbone, preset.layer, preset.tokens)
    x = torch.randn(16, published.D)
    torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-4, rtol=1e-4)
    n = len(server.log)
    again = presets.load(preset.name, local_files_only=True)
    assert len(server.log) == n
    assert again.cfg == sae.cfg
    assert not server.requests(".*(layer_99|batchtopk_1x|/99.pt)")


FASTSAE, PRISMA = "patchsae-vit-b16", "prisma-clip-b32-l8"
SIGLIP = "google/siglip-base-patch16-224"


@pytest.mark.parametrize(
    ("name", "changes", "found", "expected"),
    [
        (FASTSAE, {"model_hf_name": SIGLIP}, f"backbone {SIGLIP}", "backbone openai/clip-vit-base"),
        (
            FASTSAE,
            {"hook_target_name": "vision_model.encoder.layers.3"},
            "layer 3",
            "layer 10 for preset patchsae",
        ),
        (
            FASTSAE,
            {"hook_target_name": "text_model.encoder.layers.10"},
            "hook point text_model",
            "hook point vision_model.encoder.layers.10",
        ),
        (PRISMA, {"hook_point_layer": 9}, "layer 9", "layer 8"),
        (PRISMA, {"layer_subtype": "hook_mlp_out"}, "hook point 'hook_mlp_out'", "hook_resid_post"),
        (
            PRISMA,
            {"hook_point": "blocks.8.hook_mlp_out"},
            "hook point .hook_mlp",
            "hook_resid_post",
        ),
        (PRISMA, {"cls_token_only": True}, "tokens cls", "tokens all"),
        (
            PRISMA,
            {"model_name": "open-clip:other/vit"},
            "backbone other/vit",
            "backbone laion/clip",
        ),
    ],
)
def test_files_that_say_otherwise_than_the_table_are_refused(
    name: str,
    changes: dict,
    found: str,
    expected: str,
    server: LocalHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload(server, small(monkeypatch, name), tmp_path / "made", **changes)
    with pytest.raises(ArtifactError, match=f"found {found}.*; expected {expected}"):
        presets.load(name)


def unreachable(*_: object, **__: object) -> None:
    raise HubUnreachable("the Hub cannot be reached")


def test_fastsae_files_may_be_called_anything(
    server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload(server, small(monkeypatch, FASTSAE), tmp_path / "made")
    repo = server.repos[presets.find(FASTSAE).repo]
    files = repo.files()
    weights = torch.load(io.BytesIO(files.pop("final/state_dict.pt")))
    files["final/sae.json"] = files.pop("final/config.json")
    files["backbone/model.json"] = files.pop("backbone/config.json")
    files |= {"final/stats.split_train.pt": b"large", "final/old.pt": b"large", "README.md": b""}
    repo.commit({**files, "final/weights.safetensors": save(weights)})
    found = presets.load(FASTSAE)
    assert found.reading.found[-1] == "weights weights.safetensors"
    x = torch.randn(16, published.D)
    sae = SparseAutoencoder._from_weights(found.cfg, found.tensors)
    torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-4, rtol=1e-4)
    assert not server.requests(".*(large|README|old.pt|stats).*")
    with monkeypatch.context() as patch:
        patch.setattr(hub, "_info", unreachable)
        presets.load(FASTSAE)
    repo.commit({"README.md": b""})
    with pytest.raises(HubFileNotFound, match="no files in backbone, final\\."):
        presets.load(FASTSAE)


def test_a_converted_preset_says_what_it_is(
    server: LocalHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    preset = small(monkeypatch, PRISMA)
    upload(server, preset, tmp_path / "made")
    assert main([f"preset:{PRISMA}", "--to", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    for line in ("found       hook blocks.8.hook_resid_post", "assumed     ", "self-check  passed"):
        assert f"\n{line}" in said
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert len(training.pop("content_sha256")) == 64
    assert training == {
        "source": preset.repo,
        "source_format": "prisma",
        "license": "apache-2.0",
        "citation": preset.citation,
    }
    fold = interop.fold

    def wrong(*args: Any) -> Any:
        cfg, tensors = fold(*args)
        return cfg, {**tensors, "b_enc": tensors["b_enc"] + 0.5}

    monkeypatch.setattr(interop, "fold", wrong)
    with pytest.raises(SystemExit, match="error: .*self-check FAILED"):
        main([PRISMA, "--to", str(tmp_path / "other")])


def test_the_families_are_whole() -> None:
    names = list(presets.table())
    count = lambda start: len([n for n in names if n.startswith(start)])  # noqa: E731
    assert len(names) == len(set(names))
    assert count("visaebench-") == 60
    assert count("clipscope-") == 8
    assert (count("saev-dinov3-vit"), count("saev-dinov3-topk")) == (18, 6)
    assert (count("prisma-clip-b32-l"), count("prisma-clip-b32-spatial")) == (12, 4)
    assert count("vlm-") == 22
    sizes = {p.name: (p.d_in, p.d_sae) for p in presets.table().values()}
    assert sizes["visaebench-mae-vitb16-x32-k64"] == (768, 24576)
    assert sizes["saev-dinov3-vits16-l6"] == (384, 16384)


@pytest.mark.parametrize("preset", FOREIGN, ids=lambda p: p.name)
def test_what_is_downloaded_of_a_listing(preset: presets.Preset) -> None:
    """Of its own files and those of all other presets of the repository, its own alone."""
    own = {p.name: _listing(p) for p in FOREIGN if p.repo == preset.repo}
    everything = sorted({name for names in own.values() for name in names} | {"README.md"})
    chosen: list[str] = []
    assert sorted(presets._chosen(preset, "", chosen, everything)) == sorted(own[preset.name])
    with pytest.raises(HubFileNotFound, match="no files in|cannot get"):
        presets._chosen(preset, "", chosen, ["README.md", "elsewhere/sae.pt"])


def _listing(preset: presets.Preset) -> list[str]:
    names = {"*": "n_images_26.pt", "*.pt": "12.pt"}
    return [
        "/".join(
            names.get(part, part) if last else part.replace("*", "run")
            for part, last in zip(f.split("/"), [False] * f.count("/") + [True], strict=True)
        )
        for f in preset.files
    ]


def test_one_of_several_runs_has_to_be_named(
    server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = small(monkeypatch, "saev-dinov3-vits16-l6")
    made = upload(server, preset, tmp_path / "made")
    data = (tmp_path / "made" / "sae.pt").read_bytes()
    runs = {f"layer_6/{run}/sae.pt": data for run in ("3zih0tpa", "f5qog0he")}
    server.repos[preset.repo].commit(runs)
    with pytest.raises(ConfigError, match="one of 2 SAEs.*RUN with RUN one of 3zih0tpa, f5qog0he"):
        presets.load(preset.name)
    with pytest.raises(ConfigError, match="has no run 'x'; there are: 3zih0tpa, f5qog0he"):
        presets.load(f"preset:{preset.name}/x")
    sae = SparseAutoencoder.from_pretrained(f"preset:{preset.name}/f5qog0he")
    x = torch.randn(16, published.D)
    torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-4, rtol=1e-4)
    assert (sae.cfg.backbone.layer, sae.cfg.backbone.tokens) == (6, "patches")


def test_sae_for_vlm_without_its_config(
    server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("batchtopk", "matryoshka"):
        preset = small(monkeypatch, f"vlm-clip-l14-336-l22-{kind}-x8")
        made = upload(server, preset, tmp_path / kind)
        repo = server.repos[preset.repo]
        repo.commit({n: data for n, data in repo.files().items() if not n.endswith("config.json")})
        found = presets.load(preset.name)
        assert "no config.json" in found.reading.found[0]
        x = torch.randn(16, published.D)
        sae = SparseAutoencoder._from_weights(found.cfg, found.tensors)
        torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-4, rtol=1e-4)


def test_ours_is_bundled_and_the_app_opens_it() -> None:
    sae = SparseAutoencoder.from_pretrained("preset:emoji-world")
    bundled = SparseAutoencoder.from_pretrained("bundled")
    assert sae.cfg == bundled.cfg
    assert torch.equal(sae.W_enc, bundled.W_enc)
    loaded = load_app(parse(["--sae", "emoji-world", "--device", "cpu"], {}))
    assert loaded.sae.cfg == bundled.cfg
    assert loaded.backbone.id == "bundled"


def test_every_row_is_complete_and_says_its_licence() -> None:
    for preset in presets.table().values():
        assert preset.format in (*READERS, "patchlens")
        assert all((preset.code_license, preset.citation, preset.title, preset.repo, preset.hook))
        spelt = ("mit", "apache-2.0", "cc-by-4.0", "unknown")
        assert preset.license in spelt, "as the Hub spells licences"
        assert not any("{" in str(value) for value in vars(preset).values())
        assert "siglip" not in preset.backbone or preset.tokens != "cls", "SigLIP has no CLS token"
        assert preset.source == "." or any(f.startswith(preset.source) for f in preset.files)


def test_an_unknown_preset_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match="no preset 'nothing'; there are [0-9]+, among them"):
        SparseAutoencoder.from_pretrained("preset:nothing")


def test_a_preset_that_cannot_be_had(server: LocalHub) -> None:
    with pytest.raises(HubError, match="hyesulim/fastsae-models: .* no such repository"):
        SparseAutoencoder.from_pretrained("patchsae-vit-b16")
    assert server.log
