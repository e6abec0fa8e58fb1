"""python training/index.py: folders and labels, processes, stopping and resuming, bad input."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sae.concepts.content import FILES, LAYOUT
from sae.concepts.index import ConceptIndex
from tests.training.index_parts import make_world, words
from tests.training.training_parts import picture
from training.index import main
from training.indexing.labelled import open_labelled, vocabulary

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("index"))


def same(one: Path, two: Path) -> None:
    for name in (*FILES, LAYOUT):
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
    assert (built / "exemplars.webp").stat().st_size > 1000, "the picture of its card"
    name = next(filter(None, index.names))
    found = index.search(name, k=5)
    assert 0 < len(found) <= 5
    assert found[0].name == name
    assert all(isinstance(hit.latent, int) and isinstance(hit.score, float) for hit in found)


def test_maps_are_stored_and_can_be_added_to_an_index_without_them(built: Path, tmp_path: Path):
    index = ConceptIndex.from_pretrained(built)
    assert index.atlas.stored == index.atlas.possible == ("meaning", "cofiring", "decoder")
    ConceptIndex(index._content._replace(layout={})).save_pretrained(tmp_path)
    assert ConceptIndex.from_pretrained(tmp_path).atlas.stored == ()
    main(["--sae", str(tmp_path), "--layout-only"])
    assert (tmp_path / "concepts" / LAYOUT).read_bytes() == (
        built / "concepts" / LAYOUT
    ).read_bytes()
    with pytest.raises(SystemExit):
        main(["--sae", str(tmp_path / "none"), "--layout-only"])


def test_a_stopped_pass_goes_on_to_the_very_same_files(
    world: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from training.indexing import index_pass as module

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
    with pytest.raises(SystemExit, match="130"):
        main(words(world, tmp_path, *more))
    assert list((tmp_path / ".partial").iterdir())
    monkeypatch.setattr(module, "gather", gather)
    with pytest.raises(SystemExit, match="error: .*tau"):
        main(words(world, tmp_path, *more, "--resume", "--tau", "0.4"))
    main(words(world, tmp_path, *more, "--resume"))
    same(built, tmp_path)
    assert not (tmp_path / ".partial").exists()


def test_a_pass_that_is_over_is_not_walked_again(
    world: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from training.indexing import index_pass as module

    def dying(*_all, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "assemble", dying)
    with pytest.raises(SystemExit, match="130"):
        main(words(world, tmp_path, "--naming-minimum", "-1"))
    monkeypatch.undo()
    walked = []
    monkeypatch.setattr(module, "gather", lambda *all_, **_options: walked.extend(all_[4]))
    main(words(world, tmp_path, "--naming-minimum", "-1", "--resume"))
    assert walked == []
    same(built, tmp_path)


def test_two_processes_give_the_files_of_one(world: Path, built: Path, tmp_path: Path):
    accelerate = Path(sys.executable).with_name("accelerate")
    launched = subprocess.run(
        [accelerate, "launch", "--multi_gpu", "--num_processes", "2", "training/index.py",
         *words(world, tmp_path, "--naming-minimum", "-1")],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr[-2000:]
    assert json.loads(launched.stdout.strip().splitlines()[-1])["images"] == 24
    same(built, tmp_path)


def test_statistics_of_other_commands_are_kept_or_said_to_be_lost(
    world: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    index = ConceptIndex.from_pretrained(built)
    steerable = np.linspace(0, 1, len(index))
    index.with_statistics({"steerability": steerable}).save_pretrained(tmp_path)
    main(words(world, tmp_path, "--names-only"))
    kept = ConceptIndex.from_pretrained(tmp_path).statistics["steerability"]
    assert np.allclose(kept, steerable)
    assert "also had" not in capsys.readouterr().err
    main(words(world, tmp_path))
    assert "also had steerability" in capsys.readouterr().err
    assert "steerability" not in ConceptIndex.from_pretrained(tmp_path).statistics


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


def test_pictures_smaller_than_a_patch_of_one_class_and_odd_modes(world: Path, tmp_path: Path):
    folder = tmp_path / "data" / "only class"
    folder.mkdir(parents=True)
    sizes = {"RGB": (1, 1), "L": (2, 300), "RGBA": (300, 2), "P": (3, 3), "I;16": (5, 4)}
    for mode, size in sizes.items():
        Image.new(mode, size, 3).save(folder / f"{mode.replace(';', '')}.png")
    arguments = words(world, tmp_path, "--name-exemplars", "0", "--embedder", str(world / "clip"))
    arguments[arguments.index("--data") + 1] = str(tmp_path / "data")
    place = arguments.index("--vocabulary")
    main(arguments[:place] + arguments[place + 2 :])
    index = ConceptIndex.from_pretrained(tmp_path)
    assert (index.n_images, index.n_unreadable) == (5, 0)
    assert index.class_names == ["only class"]
    assert set(index.names) == {""}  # one class says nothing
    strongest = index.exemplars(int(index.frequency.argmax()))
    for exemplar in strongest:
        with Image.open(io.BytesIO(index.thumbnail(exemplar.image_id))) as thumbnail:
            assert min(thumbnail.size) >= 1


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
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(arguments)


def test_the_worlds_words_and_the_shipped_ones(tmp_path: Path):
    assert "grass background" in vocabulary("world", [], None)
    shipped = vocabulary(str(tmp_path), ["my class"], None)
    assert next(iter(shipped)) == "my class"
    assert len(shipped) > 3000
    assert len(open_labelled("world", 7)) == 7
    assert open_labelled("world", 7)[3].label in open_labelled("world", 7).classes


@pytest.mark.parametrize("arguments", [[], ["--sae", "bundled"], ["--sae", "user/name"]])
def test_neither_the_bundled_index_nor_the_hubs_cache_is_written_over(arguments: list[str]):
    with pytest.raises(SystemExit, match="is no folder to write an index into; say with --out"):
        main(arguments)


def test_a_vocabulary_is_read_before_the_pass(world, tmp_path, monkeypatch):
    def gather(*_args):
        raise AssertionError("the pass began")

    monkeypatch.setattr("training.index.Pass.gather", gather)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Möwe".encode("latin-1"))
    common = [
        "--sae",
        str(world / "sae"),
        "--data",
        str(world / "data"),
        "--out",
        str(tmp_path / "x"),
    ]
    for file, said in ((tmp_path / "none.txt", "none.txt: no such file"), (latin, "UTF-8")):
        with pytest.raises(SystemExit, match=said):
            main([*common, "--vocabulary", str(file)])
    with pytest.raises(SystemExit, match="--vocabulary needs"):
        main([*common, "--vocabulary", str(latin), "--name-exemplars", "0"])
