"""The stream: what its batches hold, that processes and workers do not change them, resuming."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from sae.errors import ImageError
from tests.training.training_parts import backbone, config, picture, pictures
from training.data.feeds import workers_for
from training.data.sources import ImageSource, open_source
from training.data.stream import Stopped, Stream, shards_for
from training.loop.run import open_stream

MODEL = backbone()


def stream(source: Any = None, *, rank: int = 0, world: int = 1, **changes: Any) -> Stream:
    """A stream of rounds of 4 steps of 64 tokens in all: 2 images of 17 tokens a shard."""
    settings = config(**{"batch_size": 64 // world, "steps": 40, **changes})
    return open_stream(settings, MODEL, 1, source or pictures(), rank=rank, world=world)


def take(made: Stream, n: int) -> list[torch.Tensor]:
    found = list(itertools.islice(made, n))
    made.close()
    return found


def as_set(rows: torch.Tensor) -> torch.Tensor:
    return rows[rows[:, :3].sum(1).argsort()]


def test_a_round_deals_rows_of_its_images_each_at_most_once() -> None:
    rows = torch.cat(take(stream(), 4))
    whole = MODEL.activations([picture(n) for n in range(16)], 1).flatten(0, 1)
    found = [(whole - row).abs().amax(1).argmin().item() for row in rows]
    torch.testing.assert_close(rows, whole[found])
    assert len(set(found)) == len(rows) == 256
    assert found[:64] != sorted(found[:64])
    per_shard = torch.tensor(found[:64]) // 17 % 8
    assert per_shard.bincount().tolist() == [8] * 8


@pytest.mark.parametrize("world", [2, 4, 8])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(world: int) -> None:
    alone = take(stream(), 9)
    together = zip(*(take(stream(rank=r, world=world), 9) for r in range(world)), strict=True)
    for one, parts in zip(alone, together, strict=True):
        assert torch.equal(as_set(one), as_set(torch.cat(parts)))


def test_uneven_shards_still_give_whole_batches() -> None:
    alone = take(stream(batch_size=54, shards=4), 6)
    assert {len(x) for x in alone} == {54}
    parts = [take(stream(rank=r, world=2, batch_size=27, shards=4), 6) for r in range(2)]
    for one, *both in zip(alone, *parts, strict=True):
        assert torch.equal(as_set(one), as_set(torch.cat(both)))
    asked = [(4096, 1), (4095, 3), (4096, 16), (2, 2)]
    assert [shards_for(batch, world, None) for batch, world in asked] == [8, 9, 16, 2]
    with pytest.raises(ValueError, match="--shards 8 cannot be shared by 3 processes"):
        shards_for(4095, 3, 8)


@pytest.mark.parametrize("taken", [1, 3, 4, 7])
def test_it_goes_on_from_any_batch_bit_for_bit(taken: int) -> None:
    straight = take(stream(pictures(37)), 12)
    first, second = stream(pictures(37)), stream(pictures(37))
    for _ in zip(range(taken), first, strict=False):
        pass
    second.position = json.loads(json.dumps(first.position))
    assert all(map(torch.equal, take(second, 12 - taken), straight[taken:]))


def test_workers_change_nothing() -> None:
    assert all(map(torch.equal, take(stream(), 6), take(stream(workers=2), 6)))


@pytest.mark.parametrize(
    ("cores", "world", "device", "workers"),
    [
        (2, 1, "cpu", 0),
        (32, 2, "cpu", 2),
        (2, 1, "cuda", 1),
        (16, 1, "cuda", 8),
        (16, 4, "cuda", 3),
    ],
)
def test_workers_follow_the_cores(
    cores: int, world: int, device: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(world))
    assert workers_for(None, torch.device(device)) == workers
    assert workers_for(5, torch.device(device)) == 5


def test_nothing_is_read_for_steps_that_will_not_be_made() -> None:
    seen: list[int] = []
    source = replace(pictures(), load=lambda n: seen.append(n) or picture(n))
    take(stream(source, steps=6), 6)
    assert max(seen) < 2 * 16


def test_seeds_differ_and_every_image_comes_once_a_round_through_the_data() -> None:
    assert not torch.equal(take(stream(), 1)[0], take(stream(seed=1), 1)[0])
    seen: list[int] = []
    source = replace(pictures(32), load=lambda n: seen.append(n) or picture(n))
    take(stream(source, steps=8), 8)
    assert sorted(seen) == list(range(32))


def test_unreadable_images_are_replaced_counted_and_remembered() -> None:
    def load(number: int) -> Image.Image:
        if number in (1, 20):
            raise ImageError(f"{number}.png is cut off.")
        return picture(number)

    source = ImageSource("some", load, pictures(30).numbers)
    made = stream(source)
    straight = list(itertools.islice(made, 11))
    assert {len(x) for x in straight} == {64}
    assert made.n_images == 48
    assert made.n_unreadable == sum(source.at(p, 0) in (1, 20) for p in range(48)) > 0
    again = stream(source)
    again.position = json.loads(json.dumps({**made.position, "batch": 1}))
    assert torch.equal(next(iter(again)), straight[9])
    assert (again.n_images, again.n_unreadable) == (made.n_images, made.n_unreadable)

    def none(number: int) -> Image.Image:
        raise ImageError(f"{number}.png is cut off.")

    with pytest.raises(ImageError, match="not one image of a whole group could be read"):
        take(stream(ImageSource("none", none)), 1)

    def half(number: int) -> Image.Image:
        return none(number) if number % 2 else picture(number)

    with pytest.raises(ImageError, match=r"\d+ of \d+ images could not be read .*--max-unreadable"):
        take(stream(ImageSource("half", half, pictures(50).numbers)), 8)
    assert len(take(stream(ImageSource("half", half, pictures(50).numbers), max_unreadable=1), 8))


def test_it_stops_while_filling_and_goes_on_later() -> None:
    straight = take(stream(), 8)
    made = stream()
    made.should_stop = lambda: made.position["batch"] == 4
    with pytest.raises(Stopped):
        list(made)
    assert (made.position["round"], made.position["batch"]) == (0, 4)
    again = stream()
    again.position = made.position
    assert torch.equal(take(again, 1)[0], straight[4])


def test_the_first_buffer_is_images_in_order_and_cls_is_known() -> None:
    made = stream()
    first = made.first_buffer().clone().view(16, 17, 32)
    torch.testing.assert_close(first[2], MODEL.activations([picture(1)], 1)[0])
    assert made.cls is None
    x = next(iter(made))
    known = {tuple(row.tolist()) for row in first[:, 0]}
    assert [tuple(row.tolist()) in known for row in x] == made.cls.tolist()
    made.close()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset of 90 pictures in 3 files, one of them without an image."""
    folder = tmp_path_factory.mktemp("hub") / "squares"
    folder.mkdir()
    features = datasets.Features({"photo": datasets.Image(), "n": datasets.Value("int64")})
    for file in range(3):
        numbers = range(30 * file, 30 * file + 30)
        rows = {"photo": [None if n == 50 else picture(n) for n in numbers], "n": list(numbers)}
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(folder / f"train-{file:05d}-of-00003.parquet")
    return f"hf:{folder}"


@pytest.mark.filterwarnings("default")
def test_a_streamed_dataset_is_split_resumed_and_held_out(
    parquet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, held_out = open_source(parquet, seed=0, n_eval=10, streaming=True)
    assert [held_out.load(n).tobytes() for n in range(10)] == [
        picture(n).tobytes() for n in range(10)
    ]
    shares = [source.reader(rank, 2).take(40) for rank in range(2)]
    assert not set(shares[0]) & set(shares[1])
    both = source.reader(0, 1).take(80)
    assert {*shares[0], *shares[1]} == set(both)
    thirds = [source.reader(rank, 3) for rank in range(3)]
    assert [len(set(reader.take(60))) for reader in thirds] == [20, 30, 30]
    assert set(source.first(12).reader(0, 1).take(50)) == set(both[:12])

    straight = take(stream(source, steps=28), 28)
    made = stream(source, steps=28)
    for _ in zip(range(22), made, strict=False):
        pass
    position = json.loads(json.dumps(made.position))
    assert (made.n_unreadable, position["n_unreadable"]) == (1, 1)
    again = stream(source, workers=1, steps=28)
    again.position = position
    assert all(map(torch.equal, take(again, 6), straight[22:]))
    made.close()
    reader = source.reader(0, 2)
    first, where = reader.take(7), json.loads(json.dumps(reader.state()))
    again, rest = source.reader(0, 2, where), reader.take(40)
    assert again.take(40) == rest
    states = again.state(), reader.state()  # datasets may write one place between files in two ways
    assert {**states[0], "rows": None} == {**states[1], "rows": None}
    assert again.take(20) == reader.take(20)
    assert len(set(first)) == 7
    other = {**where, "hash": "0" * 32}
    with pytest.raises(ValueError, match="its first 7 rows are not those .* another --out"):
        source.reader(0, 2, other)
    older = {name: where[name] for name in ("epoch", "n_rows", "rows")}
    assert source.reader(0, 2, older).take(40) == rest
    far = replace(source, local=False).reader(0, 2, other)  # of the Hub: when the walk is over
    far.take(40)
    assert capsys.readouterr().err == ""
    far.take(40)
    assert "its rows are other ones than when it was read before" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--streaming needs a Hugging Face dataset"):
        open_source("world", seed=0, n_eval=4, streaming=True)


def test_odd_pictures_do_not_stop_a_stream(tmp_path: Path) -> None:
    base = picture(0)
    base.convert("CMYK").save(tmp_path / "cmyk.jpg")
    base.convert("P").save(tmp_path / "palette.png")
    base.convert("I;16").save(tmp_path / "deep.png")
    base.convert("LA").save(tmp_path / "transparent.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    base.save(tmp_path / "turned.jpg", exif=exif)
    for n in range(30):
        picture(n).save(tmp_path / f"{n}.jpg")
    whole = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(whole[: len(whole) // 2])
    source, _ = open_source(str(tmp_path), seed=0, n_eval=1)
    made = stream(source, steps=12)
    assert all(bool(x.isfinite().all()) for x in take(made, 12))
    assert made.position["n_unreadable"] + made.n_unreadable >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": "random:18"}, "local has 17 tokens an image"),
        ({"batch_size": 63, "world": 2, "shards": 3}, "--shards 3 cannot be shared by 2"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(**changes)
    with pytest.raises(ValueError, match="layer 7 does not exist: local has 3 layers"):
        open_stream(config(), MODEL, 7, pictures())
