"""What a push takes and what it leaves, of SAEs, indices, heads and runs, by the real client."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sae import Backbone, hub
from sae.adaptation.files import load_head, push_head
from sae.backbones.prompting import ClipParts
from sae.concepts.index import ConceptIndex
from sae.errors import HubError
from sae.hub import push_folder
from sae.model import SparseAutoencoder
from sae.storage import sealed, write_sealed
from tests.local_hub import TOKEN, LocalHub, using
from tests.tiny_models import tiny
from tests.tiny_saes import tiny_sae
from training import publish
from training.loop import results
from training.train import main as train

ARTIFACT = {"README.md", "cfg.json", "config.json", "sae_weights.safetensors"}
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The client's own."""
COMMIT = "POST /api/models/.*/commit/.*"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr(hub, "WAIT", 0.0)
    with LocalHub() as local, using(local, tmp_path / "cache"):
        yield local


def test_index_and_heads_travel_with_their_sae(server: LocalHub, tmp_path: Path) -> None:
    SparseAutoencoder.from_pretrained("bundled").save_pretrained(tmp_path / "run")
    index = ConceptIndex.from_pretrained("bundled")
    index.save_pretrained(tmp_path / "run")
    shutil.copytree(hub.BUNDLED / "heads" / "fluent" / "coop", tmp_path / "run/heads/fluent/coop")
    (tmp_path / "run" / "checkpoints" / "step_5").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_5" / "state.json").write_text("{}")
    push_folder(tmp_path / "run", "tester/run")
    pushed = server.repos["tester/run"].files() or {}
    assert not any(name.startswith("checkpoints") for name in pushed)
    assert b"over 6,000 images" in pushed["README.md"]
    assert b"- `heads/fluent/coop`" in pushed["README.md"]
    assert ConceptIndex.from_pretrained("tester/run").names == index.names
    with pytest.raises(HubError, match="no such file"):
        load_head("tester/run", subfolder="heads/fluent/vpt")
    stored = load_head("tester/run", subfolder="heads/fluent/coop")
    ours = load_head("bundled", subfolder="fluent/coop")
    assert stored.task == "fluent"
    assert stored.backbone == ours.backbone
    assert torch.equal(stored.head.state_dict()["ctx"], ours.head.state_dict()["ctx"])


def test_a_head_and_an_index_on_their_own(server: LocalHub, tmp_path: Path) -> None:
    ConceptIndex.from_pretrained("bundled").push_to_hub("tester/index", private=True)
    assert server.repos["tester/index"].private
    assert "Upload a concept index" in server.repos["tester/index"].titles.values()
    assert ConceptIndex.from_pretrained("tester/index", token=TOKEN).n_images == 6000
    parts = ClipParts(Backbone.from_pretrained("bundled"))
    head = load_head("bundled", subfolder="fluent/vpt").head
    url = push_head("tester/head", head, parts, task="fluent", private=True)
    commit = server.repos["tester/head"].refs["main"]
    assert url.endswith(commit)
    files = server.repos["tester/head"].files() or {}
    assert set(files) == {"README.md", "config.json", "head.safetensors", ".gitattributes"}
    again = load_head("tester/head", parts, revision=commit, token=TOKEN).head
    assert all(torch.equal(again.state_dict()[n], v) for n, v in head.state_dict().items())
    shutil.copytree(hub.BUNDLED / "heads" / "fluent" / "vpt", tmp_path / "vpt")
    push_folder(tmp_path / "vpt", "tester/head")  # a trained head's folder, with its figures
    files = server.repos["tester/head"].files() or {}
    assert "metrics.json" in files
    assert b"accuracy, base classes" in files["README.md"]
    n = len(server.log)
    load_head("tester/head", revision=commit, local_files_only=True)
    assert len(server.log) == n


def test_nothing_but_an_artifacts_own_files_is_pushed(server: LocalHub, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_sae("topk").save_pretrained(run)
    for name in ("id_rsa", "secrets.json", "progress.jsonl", "patchlens/events.1", ".env", "a.png"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("{}")
    push_folder(run, "tester/run")
    assert set(server.repos["tester/run"].files() or {}) == ARTIFACT | {".gitattributes"}


def test_a_folder_that_is_no_artifact_is_refused(server: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text("secret")
    for readme in (None, "# My own project"):
        if readme:
            (tmp_path / "README.md").write_text(readme)
        with pytest.raises(HubError, match="found neither the config.json of an SAE"):
            push_folder(tmp_path, "tester/run")
        assert (tmp_path / "README.md").exists() is bool(readme)
    tiny_sae("topk").save_pretrained(tmp_path)
    with pytest.raises(HubError, match="README.md is not a card that PatchLens made"):
        push_folder(tmp_path, "tester/run")
    assert (tmp_path / "README.md").read_text() == "# My own project"
    assert server.log == []


def test_a_card_that_cannot_be_made_is_a_hub_error(server: LocalHub, tmp_path: Path) -> None:
    tiny_sae("topk").save_pretrained(tmp_path / "run")
    write_sealed(tmp_path / "run" / "metrics.json", {"dead_fraction": 97.8})
    with pytest.raises(HubError, match="dead_fraction = 97.8; expected a share"):
        push_folder(tmp_path / "run", "tester/new")
    shapes: tuple[dict, ...] = ({"fvu": 1, "evidence": []}, {"accuracy": {"base": 1}})
    for wrong in (*(json.dumps(sealed(shape)) for shape in shapes), "{"):
        (tmp_path / "run" / "metrics.json").write_text(wrong)
        with pytest.raises(HubError, match="the card of .* cannot be made"):
            push_folder(tmp_path / "run", "tester/new")
    assert server.log == []


def train_words(tmp_path: Path) -> list[str]:
    clip = tiny("clip").save(tmp_path / "clip")
    words = f"--backbone {clip} --data world --layer -2 --arch topk --d-sae 64 --k 4 --steps 6"
    words += f" --batch-size 64 --buffer 3 --eval-images 4 --threads 1 --out {tmp_path / 'run'}"
    return f"{words} --push-to tester/run --private --license mit".split()


def test_training_pushes_through_the_real_client(
    server: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault(COMMIT, 400)  # the push of the first checkpoint, which ends nothing
    train([*train_words(tmp_path), "--checkpoint-every", "3", "--push-every"])
    again = f"patchlens publish push {tmp_path / 'run'} tester/run --private"
    said = capsys.readouterr().out
    assert again in said
    repo = server.repos["tester/run"]
    assert f"pushed to {server.url}/tester/run/commit/{repo.refs['main']}" in said
    assert repo.private
    own = ARTIFACT | {"metrics.json", "training.json", "curves.png", ".gitattributes"}
    assert set(repo.files() or {}) == own
    assert b"\nlicense: mit\n" in (repo.files() or {})["README.md"]
    trained = SparseAutoencoder.from_pretrained(tmp_path / "run")
    assert torch.equal(SparseAutoencoder.from_pretrained("tester/run").W_enc, trained.W_enc)
    publish.main([*again.split()[2:], "--license", "CC-BY-4.0"])
    assert b"\nlicense: cc-by-4.0\n" in (repo.files() or {})["README.md"]


def test_whatever_an_upload_raises_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(results, "push_folder", broken)
    tiny_sae("topk").save_pretrained(tmp_path)
    shutil.copytree(hub.BUNDLED / "heads" / "fluent" / "coop", tmp_path / "heads/fluent/coop")
    said: list[str] = []
    going = results.Uploads(said.append)
    going.start(tmp_path, "tester/run")
    going.close()
    assert len(said) == 1
    assert "ZeroDivisionError: a bug" in said[0]
    assert "To take the upload up again" in said[0]
    assert "ZeroDivisionError: a bug" in results.push(tmp_path, "tester/run")
