"""Every preset against a Hub that holds a repository of exactly its layout, small and random."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sae import hub, presets
from sae.interop import FORMATS
from sae.model import SparseAutoencoder
from sae.storage import ArtifactError
from sae.ui.options import load as load_app
from sae.ui.options import parse
from tests.interop import published
from tests.local_hub import LocalHub, using

FOREIGN = [p for p in presets.table().values() if p.repo != "bundled"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as local, using(local, tmp_path / "cache"):
        yield local


def upload(server: LocalHub, preset: presets.Preset, folder: Path) -> published.Published:
    """A repository as the preset's table says it is; every listed file must be there."""
    folder.mkdir()
    if preset.format == "sae_for_vlm":
        made = published.dl(
            "BatchTopKSAE" if "batchtopk" in preset.name else "MatroyshkaBatchTopKSAE"
        )(folder)
        config, weights = preset.files
        files = {config: folder / "config.json", weights: folder / "ae.pt"}
    elif preset.format == "fastsae":
        made = published.fastsae(folder)
        backbone = {"model_hf_name": preset.backbone}
        backbone["hook_target_name"] = f"vision_model.encoder.layers.{preset.layer}"
        published.as_json(folder / "backbone" / "config.json", backbone)
        files = {name: folder / name for name in preset.files}
    else:
        made = published.prisma("relu")(folder)
        config = json.loads((folder / "config.json").read_text())
        config |= {"hook_point_layer": preset.layer}
        published.as_json(folder / "config.json", config)
        files = {name: folder / name for name in preset.files}
    server.add(preset.repo, {name: path.read_bytes() for name, path in files.items()})
    return made


@pytest.mark.parametrize("preset", FOREIGN, ids=lambda p: p.name)
def test_a_preset_loads(
    preset: presets.Preset, server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = upload(server, preset, tmp_path / "made")
    with pytest.raises(ArtifactError, match=f"expected {preset.d_in} to {preset.d_sae} for preset"):
        SparseAutoencoder.from_pretrained(f"preset:{preset.name}")
    d_sae = 36 if preset.format == "fastsae" else published.N
    small = dataclasses.replace(preset, d_in=published.D, d_sae=d_sae)
    monkeypatch.setitem(presets.table(), preset.name, small)
    sae = SparseAutoencoder.from_pretrained(f"preset:{preset.name}")
    where = sae.cfg.backbone
    assert (where.id, where.layer, where.tokens) == (preset.backbone, preset.layer, preset.tokens)
    x = torch.randn(16, published.D)
    torch.testing.assert_close(sae.encode(x), made.encode(x), atol=1e-4, rtol=1e-4)
    n = len(server.log)
    SparseAutoencoder.from_pretrained(preset.name, local_files_only=True)
    assert len(server.log) == n


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
        assert preset.format in (*FORMATS, "patchlens")
        assert all((preset.license, preset.citation, preset.title, preset.repo))
        assert preset.source == "." or any(f.startswith(preset.source) for f in preset.files)


def test_an_unknown_preset_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match="no preset 'nothing'; there are: emoji-world, patchsae-"):
        SparseAutoencoder.from_pretrained("preset:nothing")


def test_a_preset_that_cannot_be_had(server: LocalHub) -> None:
    with pytest.raises(hub.HubError, match="hyesulim/fastsae-models: cannot get backbone/config"):
        SparseAutoencoder.from_pretrained("patchsae-vit-b16")
    assert server.log
