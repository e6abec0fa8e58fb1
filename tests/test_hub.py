"""Ids to folders, cards, and what the Hub's failures read like. The Hub client is stood in for."""

import re
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from sae import hub
from sae.concepts.index import ConceptIndex
from sae.errors import HubError
from sae.hub import local_folder, push_folder, write_card
from sae.model import SparseAutoencoder
from sae.storage import write_sealed
from tests.tiny_saes import tiny_sae
from training.indexing.index_pass import index_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Response:
    """As much of an HTTP response as the client's errors look at."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code
        self.headers: dict[str, str] = {}
        self.request = None


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A Hub whose every repository holds an SAE at its root and in a/b; lists the downloads."""
    snapshot = tmp_path / "snapshots" / COMMIT
    tiny_sae("topk").save_pretrained(snapshot)
    tiny_sae("relu").save_pretrained(snapshot / "a" / "b")
    asked: list[dict[str, Any]] = []

    def download(repo_id: str, filename: str, **options: Any) -> str:
        asked.append({"repo_id": repo_id, "filename": filename, **options})
        return str(snapshot / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_a_hub_id_is_downloaded_from_one_commit(cached: list[dict[str, Any]]) -> None:
    sae = SparseAutoencoder.from_pretrained("user/name", revision="main", token="hf_x")
    assert sae.cfg.architecture == "topk"
    assert [(a["filename"], a["revision"]) for a in cached] == [
        ("config.json", "main"),
        ("sae_weights.safetensors", COMMIT),
    ]
    assert all(a["token"] == "hf_x" and not a["local_files_only"] for a in cached)


def test_a_subfolder_of_a_hub_id(cached: list[dict[str, Any]]) -> None:
    sae = SparseAutoencoder.from_pretrained("user/name", subfolder="a/b", local_files_only=True)
    assert sae.cfg.architecture == "relu"
    assert [a["filename"] for a in cached] == ["a/b/config.json", "a/b/sae_weights.safetensors"]
    assert cached[1]["revision"] == COMMIT
    assert cached[0]["local_files_only"]


def test_a_folder_needs_no_hub(cached: list[dict[str, Any]], tmp_path: Path) -> None:
    tiny_sae("jumprelu").save_pretrained(tmp_path / "runs" / "sae")
    assert SparseAutoencoder.from_pretrained(tmp_path / "runs" / "sae").cfg.d_sae == 40
    assert SparseAutoencoder.from_pretrained(str(tmp_path / "runs"), subfolder="sae").cfg.d_in == 16
    assert cached == []


def test_a_folder_goes_before_a_hub_id(
    cached: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_sae("jumprelu").save_pretrained("runs/sae")
    assert SparseAutoencoder.from_pretrained("runs/sae").cfg.architecture == "jumprelu"
    assert cached == []


def test_bundled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    tiny_sae("relu").save_pretrained(tmp_path / "sae")
    assert SparseAutoencoder.from_pretrained("bundled").cfg.architecture == "relu"
    with pytest.raises(ValueError, match="has no revision 'main'"):
        SparseAutoencoder.from_pretrained("bundled", revision="main")


def test_photos_are_a_lens_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name wins over a folder of photographs that happens to be called so."""
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    monkeypatch.chdir(tmp_path)
    tiny_sae("relu").save_pretrained(tmp_path / "photos" / "sae")
    assert SparseAutoencoder.from_pretrained("photos").cfg.architecture == "relu"
    assert ConceptIndex.beside("photos") is None
    assert local_folder("./photos", files=[]) == Path("photos")
    with pytest.raises(ValueError, match="is no folder to write an index into"):
        index_folder("photos", None)


@pytest.mark.parametrize("name", ["nowhere", "./user/name", "a/b/c", "/nowhere/at/all", "user/"])
def test_neither_folder_nor_id(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="is not a Hub id"):
        local_folder(name, files=["config.json"])


@pytest.mark.parametrize("subfolder", ["..", "a/../../b", "/etc", "", "a\\..\\b"])
def test_subfolders_stay_inside(subfolder: str) -> None:
    with pytest.raises(ValueError, match="must be a path inside the repository"):
        local_folder("user/name", files=["config.json"], subfolder=subfolder)


def http_error(kind: type[Exception], status: int) -> Exception:
    return kind("the client's long text", response=Response(status))


FAILURES = [
    (http_error(errors.RepositoryNotFoundError, 401), "no such repository, or it is private"),
    (http_error(errors.GatedRepoError, 403), "the repository is gated. Ask for access"),
    (http_error(errors.RevisionNotFoundError, 404), "no such revision. Give an existing branch"),
    (http_error(errors.RemoteEntryNotFoundError, 404), "no such file. Is it a PatchLens artifact"),
    (http_error(errors.HfHubHTTPError, 401), r"refused \(HTTP 401\). Log in"),
    (http_error(errors.HfHubHTTPError, 503), "answered HTTP 503. Try again later"),
    (errors.LocalEntryNotFoundError("x"), "not in the local cache"),
    (errors.OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE is set"),
    (errors.HFValidationError("x"), "not a valid Hub id"),
    (hub._client_error()("connection refused"), "cannot be reached .connection refused."),
    (OSError("No space left on device"), "No space left on device"),
]


@pytest.mark.parametrize(("failure", "message"), FAILURES)
def test_failures_say_what_to_do(
    failure: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(HubError, match=rf"user/name@v1: cannot get config.json: .*{message}"):
        SparseAutoencoder.from_pretrained("user/name", revision="v1")


class FakeApi:
    """Stands in for HfApi: notes what would be uploaded, or fails."""

    calls: list[tuple[str, dict[str, Any]]]
    failure: Exception | None = None

    def __init__(self, token: str | None = None) -> None:
        type(self).calls = [("token", {"token": token})]

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create", {"repo_id": repo_id, **options}))

    def upload_folder(self, **options: Any) -> Any:
        if self.failure:
            raise self.failure
        options["files"] = sorted(p.name for p in Path(options["folder_path"]).iterdir())
        self.calls.append(("upload", options))
        return huggingface_hub.CommitInfo(
            commit_url="https://huggingface.co/user/name/commit/1",
            commit_message="m",
            commit_description="",
            oid="1",
        )


def test_push_uploads_artifact_and_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    url = tiny_sae("topk").push_to_hub("user/name", private=True, token="hf_x", revision="dev")
    assert url == "https://huggingface.co/user/name/commit/1"
    token, create, upload = (call[1] for call in FakeApi.calls)
    assert token == {"token": "hf_x"}
    assert create == {"repo_id": "user/name", "private": True, "exist_ok": True}
    assert upload["files"] == ["README.md", "cfg.json", "config.json", "sae_weights.safetensors"]
    assert upload["revision"] == "dev"
    assert upload["allow_patterns"] == upload["files"]


def test_a_failed_push_is_a_hub_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "failure", http_error(errors.HfHubHTTPError, 403))
    tiny_sae("topk").save_pretrained(tmp_path)
    with pytest.raises(HubError, match=r"user/name: the upload failed: .*HTTP 403.*Log in"):
        push_folder(tmp_path, "user/name")


def test_the_card_says_what_the_files_say_and_leaves_out_the_rest(tmp_path: Path) -> None:
    tiny_sae("topk").save_pretrained(tmp_path)
    write_card(tmp_path, "user/name")
    card = (tmp_path / "README.md").read_text()
    assert 'SparseAutoencoder.from_pretrained("user/name")' in card
    assert "topk, 16 → 40 latents, k = 5; tokens: all; backbone revision `abc`" in card
    assert "Figures\n" not in card
    assert "Training\n" not in card
    sample = {"command": "the command", "data": "some photos", "n_tokens": 12_345}
    figures = {"fvu": 0.25, "l0": 16.0, "dead_fraction": 0.015}
    metrics = {**figures, "evidence": dict.fromkeys(figures, sample)}
    write_sealed(tmp_path / "metrics.json", metrics)
    write_card(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "| latents that never fired | 1.50% | some photos; 12,345 tokens |" in card
    assert "(FVU) | 0.25 |" in card
    assert "Made by `the command`" in card
    front = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert front
    assert "base_model" not in front[1]
