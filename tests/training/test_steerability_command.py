"""python training/steerability.py: which weights it loads, and where it writes what it found."""

import json
from pathlib import Path

import numpy as np
import pytest

from sae.backbones import Backbone
from sae.concepts.index import ConceptIndex
from sae.model import SparseAutoencoder
from sae.storage import read_sealed, sealed, write_json
from tests.local_hub import LocalHub, using
from tests.training.index_parts import make_world
from tests.training.index_parts import words as index_words
from training.index import main as build_index
from training.steerability import main


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SAE in sae/ with its index beside it, of a tiny CLIP in clip/."""
    root = make_world(tmp_path_factory.mktemp("steerability"))
    build_index(index_words(root, root / "sae"))
    return root


def words(world: Path, sae: str | Path, *more: str) -> list[str]:
    arguments = f"--sae {sae} --data {world / 'data'} --n-images 1".split()
    return [*arguments, "--words", str(world / "words.txt"), *more]


def steerable(folder: Path) -> np.ndarray:
    return ConceptIndex.from_pretrained(folder).statistics["steerability"]


def test_an_sae_of_the_hub_needs_a_folder_to_write_into(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    with LocalHub() as hub, using(hub, tmp_path / "cache"):
        hub.add_folder("user/name", world / "sae")
        with pytest.raises(SystemExit, match="user/name is no folder .* --out DIR"):
            main(words(world, "user/name"))
        assert not (tmp_path / "user").exists()
        main(words(world, "user/name", "--no-save"))
        assert json.loads(capsys.readouterr().out)["n_latents"] > 0
        main(words(world, "user/name", "--out", "theirs"))
        before = steerable(tmp_path / "theirs")
        assert np.isfinite(before).any()
        main(words(world, "user/name", "--out", "theirs", "--strength", "9"))
    assert not np.allclose(before, steerable(tmp_path / "theirs"), equal_nan=True)
    assert "steerability" not in ConceptIndex.from_pretrained(world / "sae").statistics
    for cached in (tmp_path / "cache").rglob("statistics.safetensors"):
        assert cached.read_bytes() == (world / "sae" / "concepts" / cached.name).read_bytes()


def test_the_bundled_index_is_not_written_over(world: Path):
    with pytest.raises(SystemExit, match="bundled is no folder .* --out DIR"):
        main(["--words", str(world / "words.txt")])


def test_an_index_of_other_weights_is_refused(world: Path, tmp_path: Path):
    other = SparseAutoencoder.from_pretrained(world / "sae")
    other.W_dec.data.mul_(2)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit, match="other weights|describes SAE weights"):
        main(words(world, tmp_path / "other", "--out", str(world / "sae")))


def test_the_backbone_is_loaded_at_the_revision_that_the_sae_names(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    SparseAutoencoder.from_pretrained(world / "sae").save_pretrained(tmp_path)
    ConceptIndex.from_pretrained(world / "sae").save_pretrained(tmp_path)
    config = read_sealed(tmp_path / "config.json")
    config["backbone"]["revision"] = "0123456789abcdef"
    write_json(tmp_path / "config.json", sealed(config))
    asked = []

    def load(id: str, *, revision: str | None = None, **options: object) -> Backbone:
        asked.append((id, revision))
        return opened(id, **options)

    opened = Backbone.from_pretrained
    monkeypatch.setattr(Backbone, "from_pretrained", load)
    main(words(world, tmp_path))
    main(words(world, tmp_path, "--backbone", f"{world}/./clip"))
    assert asked == [(str(world / "clip"), "0123456789abcdef"), (f"{world}/./clip", None)]
    assert np.isfinite(steerable(tmp_path)).any()
