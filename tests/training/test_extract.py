"""training/extract.py as a command: whole after SIGKILL, trained from, clear about mistakes."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae.model import SparseAutoencoder
from tests.tiny_models import tiny
from tests.training.training_processes import CONTEXT, end
from training import extract, train
from training.data.store import writing


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("clip").save(tmp_path_factory.mktemp("clip"))


def words(clip: Path, out: Path, *more: object) -> list[str]:
    line = "--layer 1 --data world --images 600 --eval-images 4 --shard-images 40 --threads 1"
    return ["--backbone", str(clip), "--out", str(out), *line.split(), *map(str, more)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def extract_until(words: list[str], name: str, moment: str) -> int:
    """Run the command in a process that kills itself while it writes shard `name`; its exit code."""
    process = CONTEXT.Process(target=_extract, args=(words, name, moment))
    process.start()
    return end([process])[0]


def _extract(words: list[str], name: str, moment: str) -> None:
    """The command, killed "within" the shard's file, "before" its description, or "after" both."""
    replacing, write_json = writing.replacing, writing.write_json

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def file(path: Path) -> Iterator[Path]:
        with replacing(path) as temporary:
            yield temporary
            if moment == "within" and path.stem == name:
                kill()

    def description(path: Path, content: object) -> None:
        if moment == "before" and path.stem == name:
            kill()
        write_json(path, content)
        if moment == "after" and path.stem == name:
            kill()

    writing.replacing, writing.write_json = file, description
    extract.main(words)


def test_killed_whatever_it_writes_it_goes_on_and_can_be_trained_from(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    sae = ["--backbone", str(clip), "--data", str(out), "--out", str(tmp_path / "r")]
    line = "--layer 1 --d-sae 64 --k 4 --steps 6 --batch-size 64 --buffer 3 --threads 1"
    sae += line.split()
    moments = [("train_00001", "within"), ("train_00003", "before"), ("train_00006", "after")]
    for whole, (name, moment) in zip((1, 3, 7), moments, strict=True):
        assert extract_until(words(clip, out), name, moment) == -signal.SIGKILL
        assert not (out / "manifest.json").exists()
        assert len(list(out.glob("train_*.json"))) == whole
    with pytest.raises(SystemExit, match=r"of 16 shards; expected a finished store. Run the same"):
        train.main(sae)
    extract.main(words(clip, out))
    assert (
        "10,200 activations of 600 images (0 unreadable) and 4 held-out" in capsys.readouterr().out
    )
    extract.main(words(clip, tmp_path / "straight"))
    assert contents(out) == contents(tmp_path / "straight")
    extract.main(["--out", str(out), "--check"])
    assert "all 16 shards are as they were written" in capsys.readouterr().out

    train.main(sae)
    assert SparseAutoencoder.from_pretrained(tmp_path / "r").cfg.backbone.layer == 1
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["evidence"]["fvu"]["n_images"] == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--layer", "3"], "error: layer 3 does not exist: .* has 3 layers"),
        (["--data", "nowhere"], "error: --data nowhere: no such folder"),
        (["--tokens", "some"], "error: --tokens: invalid choice: 'some'"),
        (["--tokens", "random:99"], "error: --tokens random:99: .* has 17 tokens an image"),
    ],
)
def test_mistakes_end_in_one_line(
    more: list[str], message: str, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=message) as left:
        extract.main(words(clip, tmp_path / "store", *more))
    assert "\n" not in str(left.value)
    assert not (tmp_path / "store").exists()


def test_an_endless_world_needs_an_end_and_options_must_make_sense(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--backbone", str(clip), "--data", "world", "--threads", "1"]
    line += ["--out", str(tmp_path / "s")]
    with pytest.raises(SystemExit, match="--data world has no end; .* --images N"):
        extract.main(line)
    for more, message in ((["--images", "0"], "--images must be at least 1"), ([], "are needed")):
        with pytest.raises(SystemExit, match="2"):
            extract.main([*(line if more else line[-2:]), *more])
        assert message in capsys.readouterr().err
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
