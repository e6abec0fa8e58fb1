"""Folders, datasets, tar shards and the emoji world as numbered images, some of them held out."""

import io
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest

from sae.errors import ImageError
from tests.training.training_parts import picture, pictures
from training.data.sources import open_source, open_whole
from training.data.sources.tar_shards import expand


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(45):
        path = tmp_path / "photos" / f"class{number % 3}" / f"{number}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


def test_a_folder_is_split_once_and_for_all(folder: Path) -> None:
    training, held_out = open_source(str(folder), seed=0, n_eval=512)
    again, same = open_source(str(folder), seed=7, n_eval=512)
    assert len(training.numbers) == 43
    assert len(held_out.numbers) == 2
    assert not set(training.numbers) & set(held_out.numbers)
    assert np.array_equal(held_out.numbers, same.numbers)
    assert np.array_equal(training.numbers, again.numbers)
    assert training.load(int(training.numbers[0])).size == (32, 32)
    assert "43 images" in training.name
    assert len(training.first(10).numbers) == 10
    whole, n = open_whole(str(folder))
    assert (n, whole.label(0), whole.label(44)) == (45, "class0", "class2")


def test_every_round_shows_every_image_in_another_order() -> None:
    source = pictures(12)
    rounds = [[source.at(position, 5) for position in range(s, s + 12)] for s in (0, 12)]
    assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(12))
    assert rounds[0] != rounds[1]
    assert rounds[0] != [source.at(position, 6) for position in range(12)]
    assert pictures().at(1234, 5) == 1234
    assert {pictures().first(3).at(position, 5) for position in range(9)} == {0, 1, 2}


def test_the_world_is_seeded_and_held_out() -> None:
    training, held_out = open_source("world", seed=3, n_eval=4)
    same, _ = open_source("world", seed=3, n_eval=4)
    assert training.numbers is None
    assert held_out.numbers.tolist() == [0, 1, 2, 3]
    assert training.load(17).tobytes() == same.load(17).tobytes()
    assert training.load(0).tobytes() != held_out.load(0).tobytes()
    with pytest.raises(ValueError, match="--seed must be in 0"):
        open_source("world", seed=1_000_003, n_eval=4)


@pytest.mark.filterwarnings("default")
def test_a_saved_dataset(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["cat", "dog", "owl"])
    features = datasets.Features({"label": names, "photo": datasets.Image()})
    rows = {"label": [1, 2, 0], "photo": [picture(0), picture(1), None]}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "splits")
    for name in ("one", "splits"):
        training, held_out = open_source(str(tmp_path / name), seed=0, n_eval=1)
        assert sorted([*training.numbers, *held_out.numbers]) == [0, 1, 2]
        assert training.load(1).tobytes() == picture(1).tobytes()
        assert [training.label(n) for n in range(3)] == ["dog", "owl", "cat"]
        with pytest.raises(ImageError, match="Row 2 of .* holds no image"):
            training.load(2)
    made.remove_columns("photo").save_to_disk(tmp_path / "plain")
    with pytest.raises(ValueError, match="no image column among label"):
        open_source(str(tmp_path / "plain"), seed=0, n_eval=1)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder. Give 'world'"):
        open_source(str(tmp_path / "nowhere"), seed=0, n_eval=4)
    with pytest.raises(OSError, match="the dataset could not be read: .* Check its name and split"):
        open_source(f"hf:{tmp_path / 'nowhere'}", seed=0, n_eval=4)
    with pytest.raises(FileNotFoundError, match="no images in it"):
        open_source(str(tmp_path), seed=0, n_eval=4)
    picture(0).save(tmp_path / "only.png")
    with pytest.raises(ValueError, match="holds 1 images; training needs at least 2"):
        open_source(str(tmp_path), seed=0, n_eval=4)


def write_tar(path: Path, numbers: range, *, hole: int | None = None) -> None:
    """WebDataset samples key.jpg, key.cls and key.json."""

    def add(name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        shard.addfile(entry, io.BytesIO(content))

    with tarfile.open(path, "w") as shard:
        folder = tarfile.TarInfo("train")
        folder.type = tarfile.DIRTYPE
        shard.addfile(folder)
        link = tarfile.TarInfo("train/evil.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        shard.addfile(link)
        for number in numbers:
            file = io.BytesIO()
            picture(number).save(file, "PNG")
            add(f"train/{number:04d}.PNG", file.getvalue()[: 60 if number == hole else None])
            add(f"train/{number:04d}.cls", str(number % 3).encode())
            add(f"train/{number:04d}.json", b"{}")
            add(f"train/{number:04d}.mask.png", b"no image of its own")


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"7\n", "7"),
        (b"\xef\xbb\xbfred fox", "red fox"),
        (b"-1", ""),
        (b"nan", ""),
        (b"", ""),
        (b"caf\xe9", "caf\ufffd"),
    ],
)
def test_labels_of_shards_are_what_cls_says(content: bytes, label: str, tmp_path: Path) -> None:
    file = io.BytesIO()
    picture(0).save(file, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, part in (("a.CLS", content), ("a.png", file.getvalue()), ("b.png", b"no label")):
            entry = tarfile.TarInfo(name)
            entry.size = len(part)
            shard.addfile(entry, io.BytesIO(part))
    whole, _ = open_whole(str(tmp_path / "a.tar"))
    assert [whole.label(0), whole.label(1)] == [label, ""]


def test_tar_shards_are_read_in_place(tmp_path: Path) -> None:
    for shard in range(3):
        write_tar(tmp_path / f"a-{shard:02d}.tar", range(10 * shard, 10 * shard + 10), hole=13)
    before = sorted(tmp_path.iterdir())
    for data in (str(tmp_path), str(tmp_path / "a-{00..02}.tar")):
        whole, n = open_whole(data)
        assert n == 30
        assert whole.load(27).tobytes() == picture(27).tobytes()
        assert [whole.label(number) for number in (0, 14, 29)] == ["0", "2", "2"]
        with pytest.raises(ImageError, match="cut off"):
            whole.load(13)
    training, held_out = open_source(str(tmp_path / "a-01.tar"), seed=0, n_eval=4)
    assert sorted([*training.numbers, *held_out.numbers]) == list(range(10))
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_tar_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(ValueError, match=r"a.tar: found no whole, uncompressed tar file"):
        open_whole(str(tmp_path))
    write_tar(tmp_path / "a.tar", range(4))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: content.index(b"train/0002.PNG") + 700])
    with pytest.raises(ValueError, match=r"a.tar: found no whole, uncompressed tar file"):
        open_whole(str(tmp_path))
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    with pytest.raises(FileNotFoundError, match="no images in 1 tar shards"):
        open_whole(str(tmp_path / "a.tar"))
    with pytest.raises(FileNotFoundError, match="there is no shard .*b-1.tar"):
        open_whole(str(tmp_path / "b-{1..3}.tar"))


def test_brace_patterns() -> None:
    assert expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand("{1..2}/{3..4}.tar") == ["1/3.tar", "1/4.tar", "2/3.tar", "2/4.tar"]
    for pattern in ("{5..3}.tar", "{0..999999999}.tar", "{0..999}{0..999}.tar"):
        with pytest.raises(ValueError, match=r"--data .*shards"):
            expand(pattern)
