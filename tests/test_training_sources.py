"""Folders, datasets and the emoji world as numbered images, some of them held out."""

from pathlib import Path

import datasets
import numpy as np
import pytest

from sae.images import ImageError
from tests.training_parts import picture, pictures
from training.sources import open_source


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
    features = datasets.Features({"label": datasets.Value("int64"), "photo": datasets.Image()})
    rows = {"label": [1, 2, 3], "photo": [picture(0), picture(1), None]}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "splits")
    for name in ("one", "splits"):
        training, held_out = open_source(str(tmp_path / name), seed=0, n_eval=1)
        assert sorted([*training.numbers, *held_out.numbers]) == [0, 1, 2]
        assert training.load(1).tobytes() == picture(1).tobytes()
        with pytest.raises(ImageError, match="Row 2 of .* holds no image"):
            training.load(2)
    made.remove_columns("photo").save_to_disk(tmp_path / "plain")
    with pytest.raises(ValueError, match="no image column among label"):
        open_source(str(tmp_path / "plain"), seed=0, n_eval=1)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder. Give 'world'"):
        open_source(str(tmp_path / "nowhere"), seed=0, n_eval=4)
    with pytest.raises(FileNotFoundError, match="no images in it"):
        open_source(str(tmp_path), seed=0, n_eval=4)
    picture(0).save(tmp_path / "only.png")
    with pytest.raises(ValueError, match="holds 1 images; training needs at least 2"):
        open_source(str(tmp_path), seed=0, n_eval=4)
