"""Held-out images are found again by name; changed images are refused, or accepted and said."""

import shutil
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from sae.errors import ArtifactError
from sae.model import SparseAutoencoder
from tests.tiny_models import tiny
from tests.training.training_parts import picture
from training import extract, index, prompts, train
from training.data import record
from training.evaluation.holdout import what_is_held_out
from training.indexing import index_pass

pytestmark = pytest.mark.slow
RUN = "--layer 1 --steps 4 --batch-size 64 --buffer 2 --d-sae 64 --k 4 --threads 1"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("clip").save(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(40):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return tmp_path / "photos"


def words(clip: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [*f"--backbone {clip} --data {data} --out {out} {RUN}".split(), *more]


def held_out(out: Path) -> list[str]:
    return list(record.read(out / record.HELD_OUT))


def test_a_file_that_comes_moves_no_image_in_or_out(
    clip: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train.main(words(clip, photos, out))
    kept = held_out(out)
    assert len(kept) == 2
    picture(100).save(photos / "cat" / "00-copy.png")
    source, measured, why = what_is_held_out(str(out), str(photos), 512)
    assert [measured.image_name(n) for n in measured.all] == kept
    assert "never used in training" in why
    assert not {source.image_name(n) for n in source.all} & set(kept)
    # one of them goes: the rest is still held out; another picture by its name: nobody can tell
    (photos / kept[0]).unlink()
    _, measured, _ = what_is_held_out(str(out), str(photos), 512)
    assert [measured.image_name(n) for n in measured.all] == kept[1:]
    picture(101).save(photos / kept[1])
    with pytest.raises(ValueError, match=f"{kept[1]}.* nothing says that it never saw them"):
        what_is_held_out(str(out), str(photos), 512)


def test_a_run_in_its_own_data_folder_changes_nothing(clip: Path, photos: Path) -> None:
    out = photos / "run"
    train.main(words(clip, photos, out))
    assert (out / "curves.png").is_file()
    assert what_is_held_out(str(out), str(photos), 512)[1].all
    train.main(words(clip, photos, out, "--checkpoint-every", "2", "--overwrite"))
    shutil.rmtree(out / "checkpoints" / "step_00000004")
    train.main(words(clip, photos, out, "--checkpoint-every", "2", "--resume"))


@pytest.mark.parametrize("change", ["gone", "new", "replaced"])
def test_a_run_is_not_resumed_on_other_images_without_a_word(
    change: str, clip: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    line = words(clip, photos, out, "--checkpoint-every", "2")
    train.main(line)
    shutil.rmtree(out / "checkpoints" / "step_00000004")
    kept, trained = held_out(out), list(record.read(out / record.TRAINED_ON))
    if change == "gone":
        (photos / trained[0]).unlink()
    elif change == "new":
        picture(100).save(photos / "cat" / "00-copy.png")
    else:
        picture(100).save(photos / trained[0])
    with pytest.raises(SystemExit, match=f"1 of the training images {change} .*--accept-changed-"):
        train.main([*line, "--resume"])
    assert held_out(out) == kept
    capsys.readouterr()
    train.main([*line, "--resume", "--accept-changed-data"])
    assert f"going on with changed images: 1 of the training images {change}" in (
        capsys.readouterr().out
    )
    assert held_out(out) == kept
    SparseAutoencoder.from_pretrained(out)
    train.main([*line, "--resume"])  # what was accepted is what it goes on from


def test_a_store_keeps_its_list_and_gives_it_to_its_runs(
    clip: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    line = f"--backbone {clip} --layer 1 --data {photos} --threads 1 --out {store}".split()
    extract.main(line)
    train.main(words(clip, store, tmp_path / "run"))
    assert held_out(tmp_path / "run") == held_out(store)
    picture(100).save(photos / "cat" / "00-copy.png")
    found = what_is_held_out(str(tmp_path / "run"), str(photos), 512)[1]
    assert [found.image_name(n) for n in found.all] == held_out(store)
    (photos / "cat" / "00-copy.png").unlink()
    replaced = photos / next(iter(record.read(store / record.TRAINED_ON)))
    picture(101).save(replaced)
    with pytest.raises(
        SystemExit, match="1 of the training images replaced .*--accept-changed-data"
    ):
        extract.main(line)
    shards = {path.name: path.read_bytes() for path in store.glob("*.safetensors")}
    gone, other = sorted(shards)[-2:]
    for name in (gone, "manifest.json"):
        (store / name).unlink()
    extract.main([*line, "--accept-changed-data"])
    assert (
        "going on with changed images: 1 of the training images replaced" in capsys.readouterr().out
    )
    assert (store / other).read_bytes() == shards[other]
    extract.main(line)  # what was accepted is what it goes on from
    replaced.rename(replaced.with_name("another.png"))
    with pytest.raises(SystemExit) as refused:
        extract.main([*line, "--accept-changed-data"])
    assert "images gone" in str(refused.value)
    assert "--accept-changed-data to go on" not in str(refused.value)


def test_a_copy_of_the_training_images_is_known_by_content(
    clip: Path, photos: Path, tmp_path: Path
) -> None:
    train.main(words(clip, photos, tmp_path / "run"))
    moved = tmp_path / "moved"
    photos.rename(moved)
    _, found, why = what_is_held_out(str(tmp_path / "run"), str(moved), 512)
    assert [found.image_name(n) for n in found.all] == sorted(held_out(tmp_path / "run"))
    assert "none of them is an image that the SAE was trained on, by size and content" in why


def test_an_older_run_whose_folder_grew_is_refused(
    clip: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train.main(words(clip, photos, out))
    kept = held_out(out)
    for name in (record.HELD_OUT, record.TRAINED_ON):
        (out / name).unlink()
    found = what_is_held_out(str(out), str(photos), 512)[1]
    assert [found.image_name(n) for n in found.all] == kept
    picture(100).save(photos / "cat" / "00-copy.png")
    with pytest.raises(ValueError, match="has 41 images, and had 40 .* kept no list"):
        what_is_held_out(str(out), str(photos), 512)


def test_a_list_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / record.HELD_OUT
    images = {"cat/1.png": "5:ab", "caf\udce9/\n2.png": ""}
    record.write(path, images)
    assert record.read(path) == images
    path.write_bytes(path.read_bytes().replace(b"5:ab", b"5:aB"))
    with pytest.raises(ArtifactError, match="other lines than were written"):
        record.read(path)
    path.write_text('["a", "b"]\n')
    with pytest.warns(UserWarning, match="older PatchLens"):
        assert record.read(path) == {"a": "b"}
    path.write_text('["a", "b"]\n["c"]\n')
    with pytest.raises(ArtifactError, match=r"line 2; expected .*name"):
        record.read(path)


def test_one_command_serves_for_ever(
    clip: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume begins where nothing is saved, goes on where something is, and is happy at the end."""
    runs = tmp_path / "out"
    store, sae = runs / "store", runs / "sae"
    lines = {
        extract: f"--backbone {clip} --layer 1 --data {photos} --threads 1 --out {store}",
        train: f"--backbone {clip} --data {photos} --out {sae} {RUN}",
        index: f"--sae {sae} --data {photos} --backbone {clip} --name-exemplars 0 --device cpu",
        prompts: f"--method linear --data {photos} --backbone {clip} --shots 2 --epochs 1 --out {runs}",
    }
    for command, line in lines.items():
        words = [*line.split(), "--resume"]
        assert command.main(words) == 0
        said = capsys.readouterr()
        assert "--resume: no" in said.out + said.err, command
        assert "begin" in said.out + said.err
        assert command.main(words) == 0
        said = capsys.readouterr()
        assert ("--resume: no" in said.out + said.err) == (command is index)  # it is over: anew
    with pytest.raises(
        SystemExit, match="ended after 4 steps and kept no checkpoint, so it cannot"
    ):
        train.main([*lines[train].split(), "--resume", "--steps", "8"])


def test_a_run_that_died_before_its_first_checkpoint_begins_again(
    clip: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = words(clip, photos, tmp_path / "run")
    monkeypatch.setattr(train, "begin", lambda _run: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit, match="130"):
        train.main(line)
    monkeypatch.undo()
    (tmp_path / "run" / "progress.jsonl").write_text('{"step": 3, "loss": 1}\n')
    with pytest.raises(SystemExit, match="already holds progress.jsonl"):
        train.main(line)
    (photos / held_out(tmp_path / "run")[0]).unlink()  # nothing was made of it yet
    assert train.main([*line, "--resume"]) == 0


@pytest.mark.parametrize(("command", "work"), [(train, "train"), (prompts, "train_seeds")])
def test_a_run_that_was_stopped_says_so_by_its_status(
    command: ModuleType, work: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, work, lambda *_all: False)
    line = f"--backbone {clip} --out {tmp_path / 'run'}"
    more = "--data world" if command is train else "--method coop --task fluent"
    assert command.main([*line.split(), *more.split()]) == 130


def test_an_index_of_changed_images_goes_on_only_if_that_is_accepted(
    clip: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train.main(words(clip, photos, tmp_path / "run"))
    line = f"--sae {tmp_path / 'run'} --data {photos} --batch 8 --save-every 8 --name-exemplars 0"
    line = [*line.split(), "--device", "cpu", "--resume"]

    def stop_after_a_batch(data, backbone, sae, gathered, walk, **more):
        gather(data, backbone, sae, gathered, islice(walk, 1), **more)
        raise KeyboardInterrupt

    gather = index_pass.gather
    monkeypatch.setattr(index_pass, "gather", stop_after_a_batch)
    with pytest.raises(SystemExit, match="130"):
        index.main(line)
    monkeypatch.undo()
    picture(100).save(photos / "cat" / "00.png")
    with pytest.raises(SystemExit, match="hold something else .*--accept-changed-data .*--resume"):
        index.main(line)
    picture(100).save(photos / "cat" / "00-more.png")
    with pytest.raises(SystemExit, match="error: .*run without --resume"):
        index.main([*line, "--accept-changed-data"])
    (photos / "cat" / "00-more.png").unlink()
    capsys.readouterr()
    assert index.main([*line, "--accept-changed-data"]) == 0
    assert "going on with changed images" in capsys.readouterr().err


def test_prompts_know_their_pictures(clip: Path, photos: Path, tmp_path: Path) -> None:
    line = f"--method linear --data {photos} --backbone {clip} --shots 2 --epochs 1"
    line = [*line.split(), "--out", str(tmp_path / "heads")]
    assert prompts.main(line) == 0
    for number in range(0, 40, 2):
        picture(100 + number).save(photos / "cat" / f"{number:02}.png")
    with pytest.raises(SystemExit, match="the pictures of the head in .* have changed since"):
        prompts.main(line)
    assert prompts.main([*line, "--overwrite"]) == 0
