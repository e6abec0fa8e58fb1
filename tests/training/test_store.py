"""The activation store: exact, whole or absent, refused where it does not fit."""

import errno
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from sae.backbones import Backbone
from sae.errors import ArtifactError, ImageError
from tests.tiny_models import tiny
from tests.training.training_parts import backbone, config, picture, pictures
from training.data.feeds import ImageFeed, held_out_activations
from training.data.sources import ImageSource, open_source
from training.data.store import StoredHeldOut, is_store, manifest, open_store, reading, writing
from training.data.store.reading import unpack
from training.data.store.writing import pack, quantisation_fvu
from training.data.stream import Group
from training.loop.run import open_stream

MODEL = backbone()
N, HELD_OUT = 30, 5
Made = Callable[..., Path]


def write(
    out: Path, *, source: ImageSource | None = None, rank: int = 0, world: int = 1, **changes: Any
) -> Path:
    """A store of 30 pictures in 3 shards, and of 5 held-out ones."""
    fields = {"dtype": "float16", "tokens": "all", "images_per_shard": 12, "layer": 1, **changes}
    tokens, share = fields.pop("tokens"), fields.pop("max_unreadable", 0.05)
    layer = fields.pop("layer")
    counts = {"data": "squares", "seed": 0, "n_images": N, "n_held_out": HELD_OUT}
    plan = manifest.plan_for(MODEL, layer, tokens, **fields, **counts)
    plan.write(out)
    sources = {"train": source or pictures(N), "held_out": pictures(HELD_OUT)}
    for split, images in sources.items():
        policy = plan.tokens if split == "train" else plan.held_out_tokens
        feed = ImageFeed(
            MODEL, layer, images, tokens=policy, image_batch=5, seed=0, workers=0, substitutes=False
        )
        numbers = writing.missing(out, plan, split, rank, world)
        writing.write_shards(out, plan, split, numbers, feed, max_unreadable=share, progress=str)
    manifest.finish(out, plan)
    return out


def rows_of(out: Path) -> torch.Tensor:
    shards = open_store(out).training.manifest.shards["train"]
    return torch.cat([reading.read_rows(out / s.file, 0, s.n_rows) for s in shards])


def as_set(rows: torch.Tensor) -> torch.Tensor:
    return rows[rows.double().sum(1).argsort()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("store") / "s")


def stream(data: Path, **changes: Any):
    source, _ = open_source(str(data), seed=0, n_eval=512)
    return open_stream(config(**changes), MODEL, 1, source)


def test_it_holds_every_token_of_every_image(store: Path) -> None:
    whole = MODEL.activations([picture(n) for n in range(N)], 1).flatten(0, 1)
    torch.testing.assert_close(as_set(rows_of(store)), as_set(whole.half().float()))
    first = reading.read_rows(store / "train_00000.safetensors", 0, 17)
    assert not torch.allclose(first, rows_of(store)[:17].sort(0).values)
    assert is_store(str(store))
    assert not is_store(str(store.parent))


def test_the_held_out_images_are_whole_and_apart(store: Path) -> None:
    _, held_out = open_source(str(store), seed=0, n_eval=4)
    found = list(held_out_activations(held_out, MODEL, 1, "all", image_batch=3))
    assert [len(x) for x in found] == [3, 1]
    whole = MODEL.activations([picture(n) for n in range(HELD_OUT)], 1)
    for image in torch.cat(found):
        assert (whole.half() - image).abs().amax((1, 2)).min() == 0
    images = pictures(HELD_OUT)
    (live,) = held_out_activations(images, MODEL, 1, "all", image_batch=8)
    torch.testing.assert_close(live, whole)


def test_every_epoch_sees_every_row_in_another_order(store: Path) -> None:
    """510 rows are 8 chunks (the last goes on with the first 2 rows); a round of 8 x 64 rows."""
    made = stream(store, steps=16, buffer=8)
    epochs = [torch.cat(list(itertools.islice(made, 8))) for _ in range(2)]
    whole = rows_of(store)
    for epoch in epochs:
        assert len(epoch) == 512
        assert len(epoch.unique(dim=0)) == len(whole.unique(dim=0)) == N * 17
    assert not torch.equal(*epochs)
    assert made.n_images == N
    made.close()


def test_a_stream_from_a_store_goes_on_bit_for_bit(store: Path) -> None:
    straight = list(itertools.islice(stream(store), 11))
    made = stream(store)
    for _ in zip(range(6), made, strict=False):
        pass
    again = stream(store)
    again.position = json.loads(json.dumps(made.position))
    assert all(map(torch.equal, itertools.islice(again, 5), straight[6:]))


def test_int8_loses_little_and_large_tokens_or_channels_do_not_matter(tmp_path: Path) -> None:
    rows = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    rows[:, 3] = rows[:, 3] * 50 + 400
    rows[::100] *= 40
    packed = pack(rows, "int8")
    assert packed["rows"].dtype == torch.int8
    plain = torch.arange(2000) % 100 != 0
    small = torch.arange(64) != 3
    lost = (unpack(packed) - rows)[plain][:, small].square().mean()
    assert lost < 2e-4 * rows[plain][:, small].var()
    assert quantisation_fvu(rows, packed) < 1e-3
    out = write(tmp_path / "s", dtype="int8")
    whole = MODEL.activations([picture(n) for n in range(N)], 1).flatten(0, 1)
    found = rows_of(out)
    distance = torch.cdist(found, whole).amin(1).square().sum()
    assert distance < 2e-4 * (whole - whole.mean(0)).square().sum()
    with pytest.raises(ValueError, match="1e\\+05 does not fit into float16; use --dtype int8"):
        pack(torch.tensor([[1e5, 0.0]]), "float16")
    with pytest.raises(ValueError, match="NaN or infinite"):
        pack(torch.tensor([[float("nan"), 0.0]]), "int8")


def test_random_tokens_are_those_of_the_streaming_path(tmp_path: Path) -> None:
    out = write(tmp_path / "s", tokens="random:2")
    feed = ImageFeed(MODEL, 1, pictures(N), tokens="random:2", image_batch=5, seed=0, workers=0)
    live = next(feed.read(iter([Group(0, 0, list(range(N)))]))).rows
    feed.close()
    torch.testing.assert_close(
        as_set(rows_of(out)), as_set(live.half().float()), rtol=2e-3, atol=2e-3
    )
    _, held_out = open_source(str(out), seed=0, n_eval=8)
    (found,) = held_out_activations(held_out, MODEL, 1, "all", image_batch=8)
    assert found.shape == (HELD_OUT, 17, 32)


def test_processes_share_the_shards_and_write_the_same_store(store: Path, tmp_path: Path) -> None:
    write(tmp_path / "s", rank=1, world=2)
    with pytest.raises(ArtifactError, match=r"found 1 of 4 shards; expected a finished store"):
        open_store(tmp_path / "s")
    write(tmp_path / "s", rank=0, world=2)
    assert contents(tmp_path / "s") == contents(store)


def test_a_store_that_was_cut_short_goes_on(store: Path, tmp_path: Path) -> None:
    out = shutil.copytree(store, tmp_path / "s")
    (out / "manifest.json").unlink()
    (out / "train_00001.json").unlink()
    (out / ".train_00001.safetensors.abc").write_bytes(b"half")
    shard = out / "train_00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    seen: list[int] = []
    write(
        out,
        source=ImageSource("squares", lambda n: seen.append(n) or picture(n), pictures(N).numbers),
    )
    assert len(seen) == 12 + 6
    (out / ".train_00001.safetensors.abc").unlink()
    assert contents(out) == contents(store)


def test_a_full_disk_says_so_and_loses_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    calls = iter([lambda _: None, full])
    monkeypatch.setattr(writing.os, "fsync", lambda handle: next(calls)(handle))
    with pytest.raises(OSError, match=r"the disk of .* is full: train_00001 needs .* run the same"):
        write(tmp_path / "s")
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {"plan.json", "train_00000.safetensors", "train_00000.json"}
    monkeypatch.undo()
    write(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(store)


def test_unreadable_images_are_left_out_counted_and_bounded(tmp_path: Path) -> None:
    def load(number: int) -> Image.Image:
        if number % 3 == 0:
            raise ImageError(f"{number}.png is cut off.")
        return picture(number)

    source = ImageSource("some", load, pictures(N).numbers)
    out = write(tmp_path / "s", source=source)
    shards = open_store(out).training.manifest.shards["train"]
    assert [sum(s.n_images for s in shards), sum(s.n_unreadable for s in shards)] == [20, 10]
    assert len(rows_of(out)) == 20 * 17

    def none(number: int) -> Image.Image:
        raise ImageError(f"{number}.png is cut off.")

    with pytest.raises(ImageError, match=r"12 of 12 images could not be read .*--max-unreadable"):
        write(tmp_path / "t", source=ImageSource("none", none, pictures(N).numbers))


def test_a_store_that_does_not_fit_is_refused(store: Path) -> None:
    def opened(model: Backbone = MODEL, layer: int = 1, **changes: Any) -> None:
        source, _ = open_source(str(store), seed=0, n_eval=512)
        open_stream(config(**changes), model, layer, source)

    opened()
    again = "write another store with patchlens extract"
    for tokens in ("cls", "patches", "random:2"):
        with pytest.raises(ValueError, match=f"with --tokens all, got {tokens}; .*{again}"):
            opened(tokens=tokens)
    with pytest.raises(ValueError, match="with --layer 1, got 2"):
        opened(layer=2)
    with pytest.raises(ValueError, match="--images 3: a store is read whole"):
        opened(images=3)
    other = tiny("clip")
    with torch.no_grad():
        next(other.model.vision_model.parameters()).add_(1)
    with pytest.raises(ValueError, match="with the weights of local .*got local .* with others"):
        opened(Backbone.from_model(other.model, other.image_processor))
    made = tiny("clip")
    made.image_processor.resample = 0
    with pytest.raises(ValueError, match="made with preprocessing resample 3, got resample 0"):
        opened(Backbone.from_model(made.model, made.image_processor))
    made.image_processor.resample, made.image_processor.image_mean = 3, [0.4, 0.5, 0.6]
    with pytest.raises(ValueError, match="made with preprocessing black .*, got black"):
        opened(Backbone.from_model(made.model, made.image_processor))


def test_the_weights_decide_not_the_revision_they_were_asked_for_by(store: Path) -> None:
    same = backbone()
    same.id, same.revision = "user/clip", "v2"
    for source in open_source(str(store), seed=0, n_eval=512):
        manifest.check_fits(
            source.manifest.plan, store, same, 1, "all", held_out=isinstance(source, StoredHeldOut)
        )


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train_00001.safetensors", lambda b: b[:-1], r"train_00001.*found \d+ bytes"),
        ("train_00001.safetensors", lambda b: b[:-1] + b"~", r"train_00001.*found sha256"),
        ("train_00001.json", lambda b: b.replace(b"204", b"205"), "a file changed since"),
        ("manifest.json", lambda b: b.replace(b'"format": 1', b'"format": 2'), "store format 2"),
        ("manifest.json", lambda b: b.replace(b'"d":', b'"e":'), "unknown key 'e'"),
        ("manifest.json", lambda b: b.replace(b'"layer": 1', b'"layer": "1"'), "layer = '1'"),
        ("manifest.json", lambda b: b[:-9], "a JSON object"),
    ],
)
def test_a_damaged_store_is_refused(
    name: str, change: Callable[[bytes], bytes], message: str, store: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(store, tmp_path / "s")
    (out / name).write_bytes(change((out / name).read_bytes()))
    with pytest.raises(ArtifactError, match=f"(?i){message}"):
        open_store(out)


def test_another_store_or_other_files_are_not_written_over(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a store with layer 1 was begun there, got 2"):
        write(store, layer=2)
    (tmp_path / ".plan.json.abc").write_text("{")  # another process is writing
    write(tmp_path)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(ValueError, match="is not empty and holds no store"):
        write(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_store_too_large_to_hash_is_compared_as_it_is_read(dtype: str, tmp_path: Path) -> None:
    out = write(tmp_path / "s", dtype=dtype)
    shards = open_store(out, hashed=0).training.manifest.shards["train"]
    path = out / shards[1].file
    whole = reading.read_rows(path, 0, shards[1].n_rows)
    with safe_open(path, "pt") as file:
        first = file.get_tensor("rows")[5].contiguous().view(torch.uint8).numpy().tobytes()
    content = bytearray(path.read_bytes())
    place = content.index(first) + 3
    content[place] ^= 1
    path.write_bytes(bytes(content))
    reading._opened.cache_clear()
    training = open_store(out, hashed=0).training
    assert torch.equal(reading.read_rows(path, 6, 40), whole[6:40])
    with pytest.raises(ArtifactError, match="other numbers in row 5; .* patchlens extract again"):
        reading.read_rows(path, 0, 8)
    feed = reading.StoreFeed(training, seed=0, device=torch.device("cpu"))
    places = list(range(-(-sum(shard.n_rows for shard in shards) // reading.CHUNK)))
    with pytest.raises(ArtifactError, match="other numbers in row 5"):
        list(feed.read(iter([Group(0, 0, places)])))
    with pytest.raises(ArtifactError, match="sha256"):
        open_store(out)


def test_a_store_without_digests_opens_and_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(writing, "DIGESTS", "ignored")
    monkeypatch.setattr(writing, "CHANNELS", "ignored too")
    out = write(tmp_path / "s")
    with pytest.warns(UserWarning, match="older PatchLens"):
        training = open_store(out, hashed=0).training
    assert len(reading.read_rows(out / training.manifest.shards["train"][0].file, 0, 9)) == 9
