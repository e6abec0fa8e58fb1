"""Every kind of thing that the Hub gives: of one commit, and failures told by their class."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sae import hub
from sae.adaptation.files import load_head
from sae.backbones import Backbone
from sae.backbones.image_encoder import image_encoder
from sae.backbones.vlm import VisionLanguage
from sae.concepts.index import ConceptIndex
from sae.errors import (
    HubAccessDenied,
    HubError,
    HubFileNotFound,
    HubNotCached,
    HubRepositoryNotFound,
    HubUnreachable,
)
from sae.hub import BUNDLED
from sae.interop import presets
from sae.model import SparseAutoencoder
from tests.backbones.pictures import noise
from tests.local_hub import LocalHub, using
from tests.tiny_models import save_open_clip, save_timm, tiny

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The client's own."""
Load = Callable[..., Any]
KINDS: dict[str, tuple[str, Load]] = {
    "clip": ("tester/clip", Backbone.from_pretrained),
    "open_clip": ("hf-hub:tester/open", Backbone.from_pretrained),
    "timm": ("timm/tiny", Backbone.from_pretrained),
    "encoder": ("timm/tiny", image_encoder),
    "vlm": ("tester/vlm", VisionLanguage.from_pretrained),
    "preset": ("preset:patchsae-vit-b16", SparseAutoencoder.from_pretrained),
    "sae": ("tester/sae", SparseAutoencoder.from_pretrained),
    "index": ("tester/sae", ConceptIndex.from_pretrained),
    "head": ("tester/head", load_head),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as local, using(local, tmp_path / "cache"):
        yield local


def folder_of(kind: str, folder: Path) -> Path:
    """A folder of this kind of model."""
    if kind == "vlm":
        shutil.copytree(BUNDLED / "llava", folder)
    elif kind == "head":
        shutil.copytree(BUNDLED / "heads" / "fluent" / "coop", folder)
    elif kind in ("sae", "index"):
        shutil.copytree(BUNDLED / "sae", folder)
    elif kind == "clip":
        tiny("clip").save(folder)
    elif kind == "open_clip":
        save_open_clip(tiny("open_clip").model, folder)
    else:
        save_timm(tiny("timm").model, folder)
    return folder


def repo_of(kind: str) -> str:
    id_ = KINDS[kind][0]
    return presets.find(id_).repo if kind == "preset" else id_.removeprefix("hf-hub:")


@pytest.mark.parametrize("kind", ["clip", "open_clip", "timm"])
def test_a_backbone_of_the_hub_is_that_of_its_folder(
    kind: str, server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (id_, load) = folder_of(kind, tmp_path / "made"), KINDS[kind]
    server.add_folder(repo_of(kind), folder)
    backbone, here = load(id_), Backbone.from_pretrained(folder)
    assert backbone.id == id_
    assert backbone.revision == server.repos[repo_of(kind)].refs["main"]
    images = [noise(40, 50)]
    assert torch.equal(backbone.activations(images, -1), here.activations(images, -1))
    n = len(server.log)
    again = load(id_, local_files_only=True)
    assert (again.revision, len(server.log)) == (backbone.revision, n)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load(id_).revision == backbone.revision
    assert len(server.log) == n


def test_all_files_are_of_the_commit_that_the_branch_named_first(
    server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_folder("tester/clip", folder_of("clip", tmp_path / "made"))
    repo = server.repos["tester/clip"]
    first, files = repo.refs["main"], repo.files() or {}
    fetch = hub._fetch

    def moving(*args: Any) -> Path:
        path = fetch(*args)
        repo.commit({**files, "model.safetensors": b"other weights"})
        return path

    monkeypatch.setattr(hub, "_fetch", moving)
    assert Backbone.from_pretrained("tester/clip").revision == first


def test_a_branch_that_moves_while_it_is_listed_is_listed_again(
    server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, listing = server.add("tester/any", {"a.json": b"{}"}), hub._listing

    def moving(*args: Any, **access: Any) -> tuple[str, list[str]]:
        found = listing(*args, **access)
        if len(repo.commits) == 1:
            repo.commit({"a.json": b"[]", "b.json": b"[]"})
        return found

    monkeypatch.setattr(hub, "_listing", moving)
    folder = hub.snapshot("tester/any", ["*.json"])
    assert folder.name == repo.refs["main"]
    assert sorted(p.name for p in folder.iterdir()) == ["a.json", "b.json"]


def test_a_pinned_id_stays_at_its_commit(
    server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_folder("tester/sae", folder_of("sae", tmp_path / "made"))
    repo = server.repos["tester/sae"]
    first = f"tester/sae@{repo.refs['main']}"
    assert hub.pinned("tester/sae") == hub.pinned(first) == first
    repo.commit({"README.md": b"emptied"})
    sae, index = SparseAutoencoder.from_pretrained(first), ConceptIndex.from_pretrained(first)
    assert len(index) == sae.cfg.d_sae
    for local in ("bundled", tmp_path / "made", str(tmp_path / "made"), "preset:emoji-world"):
        assert hub.pinned(local) == local
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.pinned(first) == first
    with pytest.raises(HubNotCached, match="HF_HUB_OFFLINE"):
        hub.pinned("tester/other")


def test_a_language_model_of_the_hub_takes_one_commit(server: LocalHub, tmp_path: Path) -> None:
    server.add_folder("tester/vlm", folder_of("vlm", tmp_path / "made"))
    model = VisionLanguage.from_pretrained("tester/vlm")
    assert model.id == "tester/vlm"
    commit = server.repos["tester/vlm"].refs["main"]
    weights = [line for line in server.log if line.endswith("model.safetensors")]
    assert weights
    assert all(f"/{commit}/" in line for line in weights)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_had_is_told_by_its_class(
    kind: str, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_, load = KINDS[kind]
    server.fault(".*", 503, times=99)
    with pytest.raises(HubUnreachable, match="HTTP 503. Try again later"):
        load(id_)
    server.faults.clear()
    server.fault(".*", "drop", times=99)
    with pytest.raises(HubUnreachable, match="reached"):
        load(id_)
    server.faults.clear()
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(HubNotCached, match="Unset it|local cache"):
            load(id_)
    with pytest.raises(HubRepositoryNotFound, match="no such repository, or it is private"):
        load(id_)
    server.add(repo_of(kind), {"README.md": b""})
    with pytest.raises(HubFileNotFound, match="no (such file|files)"):
        load(id_)
    with pytest.raises(HubRepositoryNotFound, match="no such revision"):
        load(id_, revision="v9")


@pytest.mark.parametrize("kind", ["sae", "index", "head"])
def test_without_network_the_cache_remembers_what_is_not_there(
    kind: str, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_, load = KINDS[kind]
    server.add(id_, {"README.md": b""})
    with pytest.raises(HubFileNotFound):
        load(id_)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubFileNotFound, match="no such file"):
        load(id_)


@pytest.mark.parametrize("kind", ["clip", "open_clip", "timm", "vlm", "sae", "index", "head"])
def test_a_gated_repository_says_so(kind: str, server: LocalHub, tmp_path: Path) -> None:
    server.add_folder(repo_of(kind), folder_of(kind, tmp_path / "made"), gated=True)
    with pytest.raises(HubAccessDenied, match="gated. Ask for access on its page"):
        KINDS[kind][1](KINDS[kind][0])


@pytest.mark.parametrize("name", ["clip", "vlm"])
def test_what_transformers_does_not_find_is_told_as_the_hubs(
    name: str, server: LocalHub, tmp_path: Path
) -> None:
    server.add_folder(repo_of(name), folder_of(name, tmp_path / "made"))
    server.fault(".*safetensors", 401, times=99)
    with pytest.raises(HubError, match=f"{repo_of(name)}.*(refused|no such repository)"):
        KINDS[name][1](KINDS[name][0])
