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
from sae.errors import ArtifactError, HubError, HubFileNotFound, HubUnreachable
from sae.interop import READERS, presets
from sae.interop.__main__ import main
from sae.model import SparseAutoencoder
from sae.ui.options import load as load_app
from sae.ui.options import parse
from tests.interop import published
from tests.local_hub import LocalHub, using

FOREIGN = [p for p in presets.table().values() if p.repo != "bundled"]


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
        files = {name: folder / name for name in preset.files}
    server.add(preset.repo, {name: path.read_bytes() for name, path in files.items()})
    return made


def small(monkeypatch: pytest.MonkeyPatch, name: str) -> presets.Preset:
    """The preset of this name, of the size that `upload` makes."""
    preset = presets.find(name)
    d_sae = 36 if preset.format == "fastsae" else published.N
    made = dataclasses.replace(preset, d_in=published.D, d_sae=d_sae)
    monkeypatch.setitem(presets.table(), preset.name, made)
    return made


@pytest.mark.usefixtures("plain_stack")
@pytest.mark.parametrize("preset", FOREIGN, ids=lambda p: p.name)
def test_a_preset_loads(
    preset: presets.Preset, server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload(server, preset, tmp_path / "made")
    expected = f"an SAE from {preset.d_in} to {preset.d_sae} for preset {preset.name}"
    with pytest.raises(ArtifactError, match=f"expected {expected}"):
        SparseAutoencoder.from_pretrained(f"preset:{preset.name}")
    small(monkeypatch, preset.name)
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
    presets.load(preset.name, local_files_only=True)
    assert len(server.log) == n


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
    assert main([PRISMA, "--to", str(tmp_path / "other")]) == 1
    assert "self-check FAILED" in capsys.readouterr().err


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
        assert preset.license in ("mit", "apache-2.0", "unknown"), "as the Hub spells licences"
        assert "siglip" not in preset.backbone or preset.tokens != "cls", "SigLIP has no CLS token"
        assert preset.source == "." or any(f.startswith(preset.source) for f in preset.files)


def test_an_unknown_preset_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match="no preset 'nothing'; there are: emoji-world, patchsae-"):
        SparseAutoencoder.from_pretrained("preset:nothing")


def test_a_preset_that_cannot_be_had(server: LocalHub) -> None:
    with pytest.raises(HubError, match="hyesulim/fastsae-models: .* no such repository"):
        SparseAutoencoder.from_pretrained("patchsae-vit-b16")
    assert server.log
