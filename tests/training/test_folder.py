"""Folders of pictures as people have them: links, loops, hidden files, odd names, broken pictures."""

import os
from pathlib import Path, PurePath

import datasets
import pytest

from sae.errors import ImageError
from tests.training.training_parts import picture
from training.data.sources import identity, open_whole
from training.data.sources.folder import labels_of, list_pictures
from training.data.sources.hugging_face import image_column, label_column, label_text
from training.tasks.data import open_task


def fill(root: Path, *names: str) -> Path:
    """Pictures of these names below `root`."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return root


def names_in(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_pictures(root)]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "b.png", "inner/c.png")
    root = fill(tmp_path / "root", "cat/a.png")
    (root / "cat" / "link.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "twice").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "cat" / "up").symlink_to(root, target_is_directory=True)
    assert names_in(root) == ["cat/a.png", "cat/link.png", "dog/b.png", "dog/inner/c.png"]


def test_what_is_no_picture_of_a_persons_is_left_out(tmp_path: Path) -> None:
    root = fill(
        tmp_path,
        *("cat/a.PNG", "cat/.hidden.png", ".ipynb_checkpoints/a.png", "__MACOSX/cat/a.png"),
        *("cat/._a.png", "runs/one/curves.png", "runs/curves.png", "curves.png"),
    )
    (root / "runs" / "one" / "training.json").write_text("{}")
    (root / "runs" / "training_images.jsonl").write_text("")
    (root / "cat" / "notes.txt").write_text("no picture")
    (root / "folder.png").mkdir()
    assert names_in(root) == ["cat/a.PNG", "curves.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fill(tmp_path, "cat/a.png", "shut/b.png")
    (root / "shut").chmod(0)
    try:
        assert names_in(root) == ["cat/a.png"]
    finally:
        (root / "shut").chmod(0o700)
    assert f"{root / 'shut'} was left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["cat/1.png", "dog/2.png"], ["cat", "dog"]),
        (["cat/monday/1.png", "cat/friday/2.png", "dog/monday/3.png"], ["cat", "cat", "dog"]),
        (["images/cat/1.png", "images/dog/2.png"], ["cat", "dog"]),
        (["train/cat/1.png", "train/dog/2.png", "Test/cat/3.png"], ["cat", "dog", "cat"]),
        (["1.png", "cat/2.png"], ["", "cat"]),
        (["all/cat/1.png", "all/cat/2.png"], ["cat", "cat"]),
        (["1.png", "2.png"], ["", ""]),
        ([], []),
    ],
)
def test_the_first_folder_that_distinguishes_is_the_class(
    paths: list[str], labels: list[str]
) -> None:
    assert labels_of([PurePath(path) for path in paths]) == labels


def test_names_that_are_not_utf_8_and_broken_files_are_told_whole(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    fill(tmp_path, "cat/a.png")
    picture(1).save(odd / "b.png")
    (odd / "broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    whole, n = open_whole(str(tmp_path))
    assert n == 4
    assert sorted({whole.label(number) for number in range(n)}) == ["caf\ufffd", "cat"]
    names = [whole.image_name(number) for number in range(n)]
    whole.label(0).encode()
    for name in ("broken.png", "gone.png"):
        number = next(i for i, found in enumerate(names) if found.endswith(name))
        with pytest.raises(ImageError, match=f"{tmp_path}.*{name}: "):
            whole.load(number)
    assert whole.content(names.index("cat/gone.png")) == ""


def test_content_is_told_by_every_byte(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for file, end in zip(files, (b"x", b"y", b"x", b"", b"x"), strict=True):
        file.write_bytes(b"a" * 100_000 + end)
    edited = bytearray(files[4].read_bytes())
    edited[50_000] ^= 1
    files[4].write_bytes(edited)
    whole, _ = open_whole(str(tmp_path))
    told = [whole.content(number) for number in range(5)]
    assert told[0] == told[2]
    assert len(set(told)) == 4
    assert told[0].startswith("100001:")
    assert told == [identity.of_content(file.read_bytes()) for file in files]
    old = told[0].rpartition(":")[0]
    assert identity.same(old, told[4])  # an older run did not read what is between
    assert not identity.same(old, told[1])
    assert identity.is_in(told[0], frozenset([old]))
    assert not identity.is_in("", frozenset([""]))


def test_one_lister_serves_prompts_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(
        tmp_path,
        *(f"{kind}/{day}/{n}.tiff" for kind in ("cat", "dog") for day in "ab" for n in range(3)),
        *(".cache/x/1.png", "__MACOSX/cat/1.png"),
    )
    broken = root / "cat" / "a" / "0.tiff"
    broken.write_bytes(b"II*\0")
    data = open_task("pets", str(root), ("the {}",))
    assert (data.base, data.novel) == (("cat", "dog"), ())
    few, test = data.few_shot("base", 4, 0), data.test("base", 10, 0, 4)
    assert len(few) == 8
    assert len(test) == 1 + 2
    assert broken not in {*few.sources, *test.sources}
    assert capsys.readouterr().err.count(f"{broken} is left out") == 1
    before = data.content([few])
    assert before == open_task("pets", str(root), ("the {}",)).content([few])
    picture(99).save(few.sources[0])
    assert data.content([few]) != before


def test_a_class_that_the_test_folder_lacks_is_said_at_once(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/cat/3.png")
    with pytest.raises(ValueError, match="train/dog: class 'dog' .* none in test"):
        open_task("pets", str(tmp_path), ("the {}",))


def test_templates_may_have_a_mark_at_their_start(tmp_path: Path) -> None:
    from sae.concepts.build.naming import read_words
    from training.tasks.data import read_templates

    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffa photo of {}\r\nthe {}\r\n".encode())
    assert read_templates(path) == ("a photo of {}", "the {}")
    assert read_words(path)[0] == "a photo of {}"
    path.write_bytes(b"caf\xe9 {}\n")
    with pytest.raises(ValueError, match=r"words.txt: not UTF-8 text"):
        read_templates(path)


def test_labels_as_data_sets_have_them() -> None:
    names = datasets.ClassLabel(names=["cat", "dog"])
    many = datasets.Sequence(names)
    number, text = datasets.Value("int64"), datasets.Value("string")
    for feature, value, expected in (
        (names, 1, "dog"),
        (names, -1, ""),
        (names, None, ""),
        (many, [1], "dog"),
        (many, [0, 1], ""),
        (many, [], ""),
        (number, -1, ""),
        (number, 7, "7"),
        (datasets.Value("float32"), float("nan"), ""),
        (text, "red cat", "red cat"),
    ):
        assert label_text(feature, value) == expected, (feature, value)


def test_columns_as_data_sets_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    names, image = datasets.ClassLabel(names=["a", "b"]), datasets.Image()
    cifar = datasets.Features({"img": image, "fine_label": names, "coarse_label": names})
    assert image_column(cifar, "x") == "img"
    assert label_column(cifar, "x") == "fine_label"
    assert "fine_label of fine_label, coarse_label" in capsys.readouterr().err
    pairs = datasets.Features({"depth": image, "image": image, "kind": names})
    assert image_column(pairs, "x") == "image"
    told = capsys.readouterr().err
    assert "images are column image of depth, image; for another one give --data 'x#depth'" in told
    assert image_column(pairs, "hf:user/pairs:test#depth") == "depth"
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match="'kind' is no column of images; there are depth, image"):
        image_column(pairs, "x#kind")
    assert label_column(pairs, "x") == "kind"
    assert label_column(datasets.Features({"image": image}), "x") is None
    plain = datasets.Features({"image": image, "label": datasets.Value("int64")})
    assert label_column(plain, "x") == "label"


def test_a_column_of_images_is_chosen_in_data(tmp_path: Path) -> None:
    image = datasets.Image()
    rows = {"image": [picture(n) for n in range(4)], "depth": [picture(9 + n) for n in range(4)]}
    made = datasets.Dataset.from_dict(rows, datasets.Features({"image": image, "depth": image}))
    made.save_to_disk(tmp_path / "pairs")
    for data, first in ((tmp_path / "pairs", 0), (f"{tmp_path / 'pairs'}#depth", 9)):
        whole, n = open_whole(str(data))
        assert n == 4
        assert whole.load(1).tobytes() == picture(first + 1).tobytes()
    with pytest.raises(ValueError, match="'masks' is no column of images"):
        open_whole(f"{tmp_path / 'pairs'}#masks")
