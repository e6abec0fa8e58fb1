"""python training/index.py: folders and labels, processes, stopping and resuming, bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sae.concepts.files import FILES
from sae.concepts.index import ConceptIndex
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.storage import ArtifactError
from tests.tiny_models import tiny
from tests.training_parts import picture
from training.index import main
from training.labelled import open_labelled, vocabulary

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP in clip/, an SAE for it in sae/, 24 pictures of three classes in data/."""
    root = tmp_path_factory.mktemp("index")
    clip = tiny("clip").save(root / "clip")
    sae = SparseAutoencoder(SAEConfig("topk", 32, 48, BackboneRef(str(clip), -2), k=4))
    rng = np.random.default_rng(0)
    for parameter in (sae.W_enc, sae.W_dec):
        parameter.data.copy_(_tensor(rng.normal(size=tuple(parameter.shape))))
    sae.save_pretrained(root / "sae")
    for number in range(24):
        folder = root / "data" / ("big_cats", "чайки", "縞")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:02}.png")
    (root / "words.txt").write_text("red\nsquare\nнебо\n", encoding="utf-8")
    return root


def _tensor(array: np.ndarray):
    import torch

    return torch.tensor(array, dtype=torch.float32)


def words(world: Path, out: Path, *more: str) -> list[str]:
    base = f"--sae {world / 'sae'} --data {world / 'data'} --out {out} --batch 5 --device cpu"
    return [*base.split(), "--vocabulary", str(world / "words.txt"), *more]


def same(one: Path, two: Path) -> None:
    for name in FILES:
        assert (one / "concepts" / name).read_bytes() == (two / "concepts" / name).read_bytes(), (
            name
        )


@pytest.fixture(scope="module")
def built(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    main(words(world, out, "--naming-minimum", "-1"))
    return out


def test_an_index_of_a_folder_with_labels_and_names(built: Path):
    index = ConceptIndex.from_pretrained(built)
    assert index.n_images == 24
    assert index.data.endswith("data, 24 images")
    assert index.class_names == ["big cats", "чайки", "縞"]
    assert set(index.names) - {""} <= {"red", "square", "небо"}
    assert index.embeddings.shape[0] == 48
    assert not (built / ".partial").exists()
    name = next(filter(None, index.names))
    found = index.search(name, k=5)
    assert 0 < len(found) <= 5
    assert found[0].name == name
    assert all(isinstance(hit.latent, int) and isinstance(hit.score, float) for hit in found)


def test_a_stopped_pass_goes_on_to_the_very_same_files(
    world: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from training import index_pass as module

    reads = 0

    def dying(data, *rest, **options):
        def done(n: int) -> None:
            nonlocal reads
            reads += n
            options_done(n)
            if reads >= 15:
                raise KeyboardInterrupt

        options_done = options.pop("done")
        return gather(data, *rest, done=done, **options)

    gather = module.gather
    monkeypatch.setattr(module, "gather", dying)
    more = ("--naming-minimum", "-1", "--save-every", "10")
    with pytest.raises(KeyboardInterrupt):
        main(words(world, tmp_path, *more))
    assert list((tmp_path / ".partial").iterdir())
    monkeypatch.setattr(module, "gather", gather)
    with pytest.raises(ArtifactError, match="tau"):
        main(words(world, tmp_path, *more, "--resume", "--tau", "0.4"))
    main(words(world, tmp_path, *more, "--resume"))
    same(built, tmp_path)
    assert not (tmp_path / ".partial").exists()


def test_two_processes_give_the_files_of_one(world: Path, built: Path, tmp_path: Path):
    accelerate = Path(sys.executable).with_name("accelerate")
    launched = subprocess.run(
        [accelerate, "launch", "--multi_gpu", "--num_processes", "2", "training/index.py",
         *words(world, tmp_path, "--naming-minimum", "-1")],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr[-2000:]
    assert json.loads(launched.stdout.strip().splitlines()[-1])["images"] == 24
    same(built, tmp_path)


def test_monosemanticity_by_an_embedder(world: Path, tmp_path: Path, capsys):
    clip = str(world / "clip")
    main(words(world, tmp_path, "--embedder", clip, "--n-images", "12", "--no-thumbnails"))
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    index = ConceptIndex.from_pretrained(tmp_path)
    assert index.n_images == 12
    scores = index.statistics["monosemanticity"]
    assert figures["monosemanticity_mean"] == pytest.approx(float(np.nanmean(scores)))
    assert np.nanmax(np.abs(scores)) <= 1


def test_without_exemplars_to_name_from_labels_are_the_names(world: Path, tmp_path: Path):
    arguments = words(world, tmp_path, "--name-exemplars", "0")
    with pytest.raises(SystemExit, match="Leave it out"):
        main(arguments)
    place = arguments.index("--vocabulary")
    main(arguments[:place] + arguments[place + 2 :])
    index = ConceptIndex.from_pretrained(tmp_path)
    assert index.text_tower is None
    assert set(index.name_sources) <= {"", "labels"}


def test_naming_again_keeps_everything_else(world: Path, built: Path, tmp_path: Path):
    ConceptIndex.from_pretrained(built).save_pretrained(tmp_path)
    (world / "other.txt").write_text("blue\n")
    arguments = words(world, tmp_path, "--names-only", "--naming-minimum", "-1")
    arguments[arguments.index("--vocabulary") + 1] = str(world / "other.txt")
    main(arguments)
    assert set(ConceptIndex.from_pretrained(tmp_path).names) == {"blue", ""} or set(
        ConceptIndex.from_pretrained(tmp_path).names
    ) == {"blue"}


def test_a_folder_without_labels(world: Path, tmp_path: Path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(3):
        picture(number).save(flat / f"{number}.png")
    (flat / "broken.png").write_bytes(b"not a picture")
    arguments = words(world, tmp_path)
    arguments[arguments.index("--data") + 1] = str(flat)
    main(arguments)
    index = ConceptIndex.from_pretrained(tmp_path)
    assert (index.n_images, index.n_unreadable, index.class_names) == (3, 1, [])
    assert (index.entropy == -1).all()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--n-images", "0", "at least one"),
        ("--tau", "-1", "tau"),
        ("--data", "no/such/folder", "no such folder"),
        ("--sae", "no-such-sae", "No folder"),
        ("--vocabulary", "no-such-file", "no-such-file"),
    ],
)
def test_bad_options_say_what_is_wrong(world: Path, tmp_path: Path, option, value, message):
    arguments = words(world, tmp_path)
    if option in arguments:
        arguments[arguments.index(option) + 1] = value
    else:
        arguments += [option, value]
    with pytest.raises((ValueError, OSError), match=message):
        main(arguments)


def test_the_worlds_words_and_the_shipped_ones(tmp_path: Path):
    assert "grass background" in vocabulary("world", [], None)
    shipped = vocabulary(str(tmp_path), ["my class"], None)
    assert next(iter(shipped)) == "my class"
    assert len(shipped) > 3000
    assert len(open_labelled("world", 7)) == 7
    assert open_labelled("world", 7)[3].label in open_labelled("world", 7).classes
