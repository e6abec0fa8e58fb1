"""The index beside an SAE: there, not there, or not to be asked for; and always from one commit."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae.concepts.build.assembly import build_index
from sae.concepts.content import FILES, FOLDER
from sae.concepts.index import ConceptIndex
from sae.errors import ArtifactError, HubAccessDenied, HubError, HubNotCached, HubUnreachable
from tests.concepts.concept_parts import FakeBackbone, Reds, make_sae
from tests.local_hub import TOKEN, LocalHub, using

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""The Hub client's own."""
FETCH = "(GET|HEAD) /.*/resolve/.*"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as local, using(local, tmp_path / "cache"):
        yield local


def artifact(folder: Path, bias: float = 0.0) -> Path:
    """An SAE and its index."""
    sae = make_sae()
    sae.b_enc.data[0] = bias
    sae.save_pretrained(folder)
    weights = json.loads((folder / "config.json").read_text())["sha256"]["sae_weights.safetensors"]
    data = Reds([20, 10, 0])
    build_index(data, FakeBackbone(), sae, sae_sha256=weights).save_pretrained(folder)
    return folder


def bare(folder: Path) -> Path:
    """An SAE alone."""
    make_sae().save_pretrained(folder)
    return folder


def test_an_index_in_a_folder_or_at_the_hub_is_read(server, tmp_path):
    folder = artifact(tmp_path / "made")
    server.add_folder("tester/sae", folder)
    for where in (folder, str(folder), "tester/sae", "tester/sae@main"):
        assert ConceptIndex.beside(where).n_images == 3
    assert len(ConceptIndex.beside("bundled")) > 3


def test_an_sae_without_one_has_none(server, tmp_path):
    folder = bare(tmp_path / "made")
    server.add_folder("tester/sae", folder)
    assert ConceptIndex.beside(folder) is None
    assert ConceptIndex.beside("tester/sae") is None
    assert ConceptIndex.beside("tester/sae", local_files_only=True) is None  # as it was told before
    (folder / "layer_3").mkdir()
    assert ConceptIndex.beside(folder, subfolder="layer_3") is None
    assert ConceptIndex.beside("preset:prisma-clip-b32-l8") is None


@pytest.mark.parametrize("fault", ["drop", 503])
def test_a_network_that_fails_is_not_an_sae_without_an_index(server, tmp_path, fault):
    server.add_folder("tester/sae", bare(tmp_path / "made"))
    server.fault(FETCH, fault, 99)
    with pytest.raises(HubUnreachable, match="index"):
        ConceptIndex.beside("tester/sae")


def test_a_login_that_fails_is_not_an_sae_without_an_index(server, tmp_path):
    server.add_folder("tester/sae", bare(tmp_path / "made"), gated=True)
    with pytest.raises(HubAccessDenied, match="gated"):
        ConceptIndex.beside("tester/sae")
    with pytest.raises(HubAccessDenied, match="refused"):
        ConceptIndex.beside("tester/sae", token="other")  # noqa: S106
    server.repos["tester/sae"].private = True
    with pytest.raises(HubError, match="private"):
        ConceptIndex.beside("tester/sae", token=False)


def test_what_was_never_asked_for_is_not_known(server, tmp_path):
    server.add_folder("tester/sae", bare(tmp_path / "made"))
    with pytest.raises(HubNotCached, match="local_files_only"):
        ConceptIndex.beside("tester/sae", local_files_only=True)


def test_an_index_that_is_half_there_is_an_error(server, tmp_path):
    folder = artifact(tmp_path / "made")
    (folder / FOLDER / FILES[-1]).unlink()
    server.add_folder("tester/sae", folder)
    with pytest.raises(ArtifactError, match="no such file"):
        ConceptIndex.beside(folder)
    with pytest.raises(HubError, match=f"cannot get {FOLDER}/{FILES[-1]}"):
        ConceptIndex.beside("tester/sae")


def test_a_branch_that_moves_meanwhile_gives_one_commit(server, tmp_path, monkeypatch):
    repo = server.add_folder("tester/sae", artifact(tmp_path / "first"))
    first = repo.refs["main"]
    later = artifact(tmp_path / "later", bias=1.0)
    files = {str(p.relative_to(later)): p.read_bytes() for p in later.rglob("*") if p.is_file()}
    later_commit = repo.commit(files, "train on")
    repo.refs["main"] = first
    plain = server.take_fault

    def moves(line: str) -> object:
        if FILES[1] in line:  # the second file is asked for: somebody pushes
            repo.refs["main"] = later_commit
        return plain(line)

    monkeypatch.setattr(server, "take_fault", moves)
    index = ConceptIndex.from_pretrained("tester/sae", token=TOKEN)
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    assert index.sae_sha256 == config["sha256"]["sae_weights.safetensors"]
