"""Which SAE a Space opens: pinned if it is on the Hub, copied if it is here, refused if it cannot run."""

import dataclasses
import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from sae.config import BackboneRef
from sae.errors import HubError
from sae.hub import BUNDLED
from sae.interop import presets
from sae.model import SparseAutoencoder
from sae.storage import write_sealed
from sae.ui.options import load, parse
from tests.local_hub import LocalHub, using
from tests.tiny_saes import tiny_sae
from training import publish

PRESET = "vlm-clip-l14-336-l11-batchtopk-x8"


def opened(out: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the Space's app.py asks the page to open."""
    monkeypatch.delenv("PATCHLENS_SAE", raising=False)
    monkeypatch.setitem(sys.modules, "spaces", None)
    monkeypatch.setattr("sae.ui.__main__.build", lambda _: None)
    runpy.run_path(str(out / "app.py"))
    return os.environ.pop("PATCHLENS_SAE", "bundled")


@pytest.mark.parametrize("prefix", ["", "preset:"])
def test_an_sae_of_the_hub_is_pinned(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with LocalHub() as hub, using(hub, tmp_path / "cache"):
        repo = "user/name" if not prefix else presets.find(PRESET).repo
        sae = repo if not prefix else f"preset:{PRESET}"
        with pytest.raises(HubError, match="no such repository"):
            publish.space(out, sae)
        assert not out.exists()
        tiny_sae("topk").save_pretrained(tmp_path / "sae")
        hub.add_folder(repo, tmp_path / "sae")
        commit = hub.repos[repo].refs["main"]
        publish.space(out, sae)
        assert opened(out, monkeypatch) == f"{sae}@{commit}"
        assert f"`{sae}@{commit}`" in (out / "README.md").read_text()
        hub.repos[repo].commit({}, "everything deleted")
        if prefix:
            with pytest.raises(HubError, match="cannot get batch_top_k"):
                SparseAutoencoder.from_pretrained(f"{sae}@{commit}")
            assert hub.requests(f".*/(resolve|revision)/{commit}.*") > 0
        else:
            assert SparseAutoencoder.from_pretrained(f"{sae}@{commit}").cfg.d_sae == 40
            with pytest.raises(HubError, match="no such revision"):
                publish.space(out, f"{sae}@v9")


def test_an_sae_of_this_machine_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = tmp_path / "runs" / "first", tmp_path / "out"
    shutil.copytree(BUNDLED / "sae", run)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "state.json").touch()
    monkeypatch.chdir(tmp_path)
    publish.main(["space", "out", "--sae", "runs/first"])
    assert not (out / "artifact" / "checkpoints").exists()
    shutil.rmtree(run)
    sae = opened(out, monkeypatch)
    loaded = load(parse([], {"PATCHLENS_SAE": sae, "PATCHLENS_DEVICE": "cpu"}))
    assert loaded.index is not None
    assert loaded.sae.cfg.d_sae == 2048
    assert "`first`" in (out / "README.md").read_text()
    publish.space(out)
    assert not (out / "artifact").exists()


@pytest.mark.parametrize("id_", ["{tmp}/clip", "runs/clip"])
def test_an_sae_that_no_space_can_run_is_refused(id_: str, tmp_path: Path) -> None:
    sae = tiny_sae("topk")
    where = BackboneRef(id_.format(tmp=tmp_path), 1, family="clip")
    sae.cfg = dataclasses.replace(sae.cfg, backbone=where)
    sae.save_pretrained(tmp_path / "run")
    write_sealed(tmp_path / "run" / "training.json", {"steps": 5})
    with pytest.raises(ValueError, match="needs the backbone .*clip, a folder of this machine"):
        publish.space(tmp_path / "out", str(tmp_path / "run"))
    assert not (tmp_path / "out").exists()


def test_zero_gpu_chooses_its_torch(tmp_path: Path) -> None:
    publish.main(["space", str(tmp_path / "out"), "--zero-gpu"])
    lines = (tmp_path / "out" / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if "==" not in line] == ["torch>=2.11", "torchvision"]
