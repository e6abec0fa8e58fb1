"""Push and pull through the real huggingface_hub client, against a Hub in this process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sae import hub
from sae.concepts.index import ConceptIndex
from sae.errors import ArtifactError, HubError
from sae.hub import commit_of, list_files, push_folder
from sae.model import SparseAutoencoder
from tests.local_hub import TOKEN, LocalHub, using
from tests.tiny_saes import tiny_sae

ROOT = Path(__file__).resolve().parents[1]
ARTIFACT = {"README.md", "cfg.json", "config.json", "sae_weights.safetensors"}
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The client's own."""
COMMIT, RESOLVE = "POST /api/models/.*/commit/.*", "(GET|HEAD) /.*/resolve/.*"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr(hub, "WAIT", 0.0)
    with LocalHub() as local, using(local, tmp_path / "cache"):
        yield local


def published(server: LocalHub, tmp_path: Path, name: str = "tester/sae", **options: bool) -> Path:
    tiny_sae("topk").save_pretrained(tmp_path / "made")
    server.add_folder(name, tmp_path / "made", **options)
    return tmp_path / "made"


def test_push_then_pull(server: LocalHub) -> None:
    sae = tiny_sae("jumprelu")
    url = sae.push_to_hub("tester/new", private=True, token=TOKEN)
    repo = server.repos["tester/new"]
    assert url.endswith(f"/tester/new/commit/{repo.refs['main']}")
    assert repo.private
    assert set(repo.files() or {}) == ARTIFACT | {".gitattributes"}
    again = SparseAutoencoder.from_pretrained("tester/new", token=TOKEN)
    assert torch.equal(again.W_enc, sae.W_enc)
    assert list_files("tester/new", token=TOKEN) == sorted(ARTIFACT | {".gitattributes"})


def test_pinned_revisions_and_branches(server: LocalHub, tmp_path: Path) -> None:
    made = published(server, tmp_path)
    first = server.repos["tester/sae"].refs["main"]
    server.repos["tester/sae"].refs["dev"] = first
    tiny_sae("relu").push_to_hub("tester/sae")
    assert SparseAutoencoder.from_pretrained("tester/sae").cfg.architecture == "relu"
    for revision in (first, "dev"):
        sae = SparseAutoencoder.from_pretrained("tester/sae", revision=revision)
        assert sae.cfg.architecture == "topk"
    push_folder(made, "tester/sae", revision="dev")
    assert "README.md" in (server.repos["tester/sae"].files("dev") or {})


def test_subfolders(server: LocalHub, tmp_path: Path) -> None:
    tiny_sae("relu").save_pretrained(tmp_path / "made" / "layer_3")
    published(server, tmp_path)
    sae = SparseAutoencoder.from_pretrained("tester/sae", subfolder="layer_3")
    assert sae.cfg.architecture == "relu"
    with pytest.raises(
        HubError, match="cannot get layer_4/config.json: the repository has no such"
    ):
        SparseAutoencoder.from_pretrained("tester/sae", subfolder="layer_4")


def test_an_id_may_name_its_revision(server: LocalHub, tmp_path: Path) -> None:
    published(server, tmp_path)
    first = server.repos["tester/sae"].refs["main"]
    tiny_sae("relu").push_to_hub("tester/sae")
    assert SparseAutoencoder.from_pretrained("tester/sae").cfg.architecture == "relu"
    assert SparseAutoencoder.from_pretrained(f"tester/sae@{first}").cfg.architecture == "topk"
    assert commit_of("tester/sae", revision=first) == first
    assert commit_of("tester/sae") == server.repos["tester/sae"].refs["main"] != first


def test_the_index_of_a_preset() -> None:
    assert ConceptIndex.from_pretrained("preset:emoji-world").n_images == 6000
    with pytest.raises(
        ArtifactError, match="no concept index.*patchlens convert preset:patchsae-vit-b16"
    ):
        ConceptIndex.from_pretrained("preset:patchsae-vit-b16")
    with pytest.raises(ValueError, match="no preset 'nothing'"):
        ConceptIndex.from_pretrained("preset:nothing")


def test_the_cache_serves_without_network(
    server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(server, tmp_path)
    commit = server.repos["tester/sae"].refs["main"]
    with pytest.raises(HubError, match="not in the local cache"):
        SparseAutoencoder.from_pretrained("tester/sae", local_files_only=True)
    SparseAutoencoder.from_pretrained("tester/sae")
    n = len(server.log)
    SparseAutoencoder.from_pretrained("tester/sae", local_files_only=True)
    SparseAutoencoder.from_pretrained("tester/sae", local_files_only=True, revision=commit)
    assert len(server.log) == n
    server.fault(RESOLVE, "drop", times=99)
    assert SparseAutoencoder.from_pretrained("tester/sae").cfg.d_sae == 40
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    n = len(server.log)
    assert SparseAutoencoder.from_pretrained("tester/sae").cfg.d_sae == 40
    assert len(server.log) == n


def test_what_cannot_be_had_says_why(server: LocalHub, tmp_path: Path) -> None:
    published(server, tmp_path)
    published(server, tmp_path, "tester/closed", gated=True)
    published(server, tmp_path, "tester/hidden", private=True)
    server.add("tester/half", {"config.json": b"{}"})
    server.add("tester/card", {"README.md": b"soon"})
    tries = {
        ("tester/nothing", None, None): "no such repository, or it is private",
        ("tester/sae", "v9", None): "no such revision. Give an existing branch",
        ("tester/closed", None, None): "gated. Ask for access",
        ("tester/closed", None, False): "gated. Ask for access",
        ("tester/hidden", None, False): "no such repository, or it is private",
        ("tester/sae", None, "hf_wrong"): r"(refused \(HTTP 401\)|no such repository)",
        (
            "tester/half",
            None,
            None,
        ): "cannot get sae_weights.safetensors: .*was its upload finished",
        ("tester/card", None, None): "cannot get config.json: .*no such file",
    }
    for (name, revision, token), message in tries.items():
        with pytest.raises(HubError, match=message):
            SparseAutoencoder.from_pretrained(name, revision=revision, token=token)


def test_no_network(server: LocalHub) -> None:
    server.fault(".*", "drop", times=99)
    with pytest.raises(HubError, match="cannot be reached|not reached"):
        SparseAutoencoder.from_pretrained("tester/sae")
    with pytest.raises(HubError, match="the Hub cannot be reached"):
        tiny_sae("topk").push_to_hub("tester/sae")


def test_a_download_that_breaks_off_is_taken_up(server: LocalHub, tmp_path: Path) -> None:
    published(server, tmp_path)
    server.fault("GET /.*/resolve/.*safetensors", "half")
    server.fault("HEAD /.*/resolve/.*safetensors", 503)
    sae = SparseAutoencoder.from_pretrained("tester/sae")
    assert torch.equal(sae.W_enc, tiny_sae("topk").W_enc)


def test_another_commits_weights_are_refused(server: LocalHub, tmp_path: Path) -> None:
    made = published(server, tmp_path)
    tiny_sae("topk", seed=1).save_pretrained(tmp_path / "other")
    weights = (tmp_path / "other" / "sae_weights.safetensors").read_bytes()
    files = {p.name: p.read_bytes() for p in made.iterdir()}
    server.add("tester/mixed", files | {"sae_weights.safetensors": weights})
    with pytest.raises(ArtifactError, match="found sha256"):
        SparseAutoencoder.from_pretrained("tester/mixed")


@pytest.mark.parametrize("kind", ["drop", "drop_after", 503, 429, 500])
@pytest.mark.parametrize(
    "step",
    ["POST /api/repos/create", "POST /.*/preupload/.*", "PUT /_lfs/.*", "POST /.*/batch", COMMIT],
)
def test_an_upload_gets_through_one_fault(server: LocalHub, kind: str | int, step: str) -> None:
    server.fault(step, kind)
    sae = tiny_sae("topk")
    url = sae.push_to_hub("tester/new")
    repo = server.repos["tester/new"]
    assert url.endswith(repo.refs["main"])
    assert len(repo.commits) == 2, "the repository's first commit and one of ours"
    again = SparseAutoencoder.from_pretrained("tester/new")
    assert torch.equal(again.W_enc, sae.W_enc)


def test_the_same_push_twice_makes_one_commit(server: LocalHub, tmp_path: Path) -> None:
    tiny_sae("topk").save_pretrained(tmp_path / "run")
    first = push_folder(tmp_path / "run", "tester/new")
    assert push_folder(tmp_path / "run", "tester/new") == first
    assert len(server.repos["tester/new"].commits) == 2
    assert server.requests("PUT /_lfs/.*") == 1


def test_a_push_that_fails_for_good_can_be_taken_up(server: LocalHub, tmp_path: Path) -> None:
    tiny_sae("topk").save_pretrained(tmp_path / "run")
    server.fault(COMMIT, 503, times=50)
    with pytest.raises(HubError, match="upload failed: the Hub answered HTTP 503. Try again later"):
        push_folder(tmp_path / "run", "tester/new")
    server.faults.clear()
    push_folder(tmp_path / "run", "tester/new")
    assert server.requests("PUT /_lfs/.*") == 1, "the weights had arrived the first time"
    assert SparseAutoencoder.from_pretrained("tester/new").cfg.d_sae == 40


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_a_refused_push_is_not_repeated(server: LocalHub, tmp_path: Path, status: int) -> None:
    tiny_sae("topk").save_pretrained(tmp_path / "run")
    server.fault(COMMIT, status, times=50)
    with pytest.raises(HubError, match="the upload failed"):
        push_folder(tmp_path / "run", "tester/new")
    assert server.requests(COMMIT) == 1


def test_the_endpoint_comes_from_the_environment(server: LocalHub, tmp_path: Path) -> None:
    tiny_sae("topk").save_pretrained(tmp_path / "run")
    code = (
        "import sys; from sae.hub import local_folder, push_folder\n"
        "push_folder(sys.argv[1], 'tester/env')\n"
        "print(local_folder('tester/env', files=['config.json']))"
    )
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], env=environment, cwd=ROOT, check=True
    )
    assert set(server.repos["tester/env"].files() or {}) > {"config.json", "README.md"}
