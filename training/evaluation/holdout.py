"""Which images an SAE never saw in training, so that figures on them are held-out figures.

Knows what training.json says of an SAE's data, and how folders and stores lie to each other. Knows
nothing of figures.
"""

import contextlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sae.hub import local_folder
from sae.storage import read_sealed
from training.data import record
from training.data.sources import ImageSource, open_source, open_whole
from training.data.sources.hugging_face import without_column
from training.data.sources.identity import is_in, same
from training.data.sources.tar_shards import is_tar_data, shard_paths
from training.data.store import is_store
from training.data.store.manifest import read_plan


@dataclass(frozen=True)
class TrainingData:
    """What an SAE was trained on."""

    data: str = ""
    """Whose images: --data of its training, or of the store that it was trained from; "" if it does
    not say."""
    given: str = ""
    """--data of its training: the store, where there was one."""
    held_out: int = 512
    """How many images its training held out, at most."""
    how: dict[str, Any] = field(default_factory=lambda: {"seed": 0})
    """What else open_source has to know."""
    kept: dict[str, str] = field(default_factory=dict)
    """Content by name of the images that training held out; {} where it kept no list of them."""
    seen: frozenset[str] = frozenset()
    """Contents of the images it trained on, where its list of them is at hand."""
    n_images: int | None = None
    """How many images there were then, training's and held-out ones, of an SAE without lists."""

    @classmethod
    def of(cls, sae: str) -> "TrainingData":
        """What the training.json of an artifact says, and the lists of images beside it; ArtifactError if
        that was altered."""
        try:
            folder = local_folder(sae, files=("training.json",))
        except (ValueError, OSError):
            return cls()
        if not (folder / "training.json").is_file():
            return cls()
        entries = read_sealed(folder / "training.json")
        kept = {}
        with contextlib.suppress(OSError):
            kept = record.read(local_folder(sae, files=(record.HELD_OUT,)) / record.HELD_OUT)
        options, origin = (_object(entries.get(name)) for name in ("options", "origin"))
        how = {"seed": entries.get("seed", 0), "streaming": bool(options.get("streaming"))}
        given = str(options.get("data", ""))
        seen: frozenset[str] = frozenset()
        with contextlib.suppress(OSError):
            lists = Path(given) if is_store(given) else folder
            seen = frozenset(record.read(lists / record.TRAINED_ON).values()) - {""}
        if origin:
            data, held_out = str(origin.get("data", "")), int(origin.get("held_out", 0))
        else:
            data, held_out = behind(given)
            held_out = held_out or int(options.get("eval_images", 512))
        n_then = re.findall(r"^\d+(?= images of )|\d+(?= images$)", str(entries.get("dataset", "")))
        n_images = int(n_then[0]) + held_out if n_then and origin else None
        return cls(data, given, held_out, how, kept, seen, n_images)

    def source(self) -> Any:
        """The training images; rather their activations, if these are stored: they cost no forward.
        Raises what open_source raises."""
        data = self.given if is_store(self.given) else self.data
        return open_source(data, n_eval=self.held_out, kept=self.kept, **self.how)[0]


def what_is_held_out(sae: str, data: str, n_images: int) -> tuple[Any, Any, str]:
    """Images to fit baselines on, at most `n_images` held-out ones, and why they are held out.

    The data that the SAE was trained on gives the images that its training held out. Other data is
    held out as a whole; a folder inside or around the training folder is refused with a ValueError,
    because it may share images, and so is a store that holds out other images than training did.
    """
    trained = TrainingData.of(sae)
    origin, stored = behind(data)
    if data == "world" or _same(origin, trained.data):
        n = n_images if data == "world" else min(n_images, trained.held_out)
        if stored > trained.held_out:
            raise ValueError(
                f"--data {data}: the store holds out {stored} images, the SAE's training only "
                f"{trained.held_out}, so it saw some of them; give --data {trained.data}."
            )
        how = trained.how if data == "world" else {**trained.how, "kept": trained.kept}
        source, held_out = open_source(data, n_eval=n, **how)
        if data != "world":
            source, held_out = _certain(trained, data, source, held_out, n)
        return source, held_out, f"{held_out.name}: never used in training"
    if _overlap(origin, trained.data):
        raise ValueError(
            f"--data {data} and the training data {trained.data} lie within each other, so images "
            f"may be shared; give --data {trained.data} for its own held-out images, or another "
            "folder."
        )
    return _other(data, n_images, trained)


def _certain(
    trained: TrainingData, data: str, source: Any, held_out: Any, n: int
) -> tuple[Any, Any]:
    """The first `n` held-out images; ValueError if they may not be those that training held out."""
    now = (
        record.record_of(source, held_out).held_out
        if is_store(data)
        else record.images_of(held_out)
    )
    if trained.kept:
        if other := [name for name in now if not same(trained.kept.get(name, ""), now[name])]:
            raise ValueError(
                f"--data {data}: {len(other)} of the images that training held out are other ones now "
                f"({other[0]!r} …), so nothing says that it never saw them; put them back, or "
                "measure on other data."
            )
        if isinstance(held_out, ImageSource):
            some = held_out.all[:n]
            held_out = replace(
                held_out, numbers=np.array(some), name=f"{data}, {len(some)} held-out images"
            )
        return source, held_out
    n_now = (
        len(source.all) + len(held_out.all) if isinstance(held_out, ImageSource) and now else None
    )
    if None not in (trained.n_images, n_now) and trained.n_images != n_now:
        raise ValueError(
            f"--data {data} has {n_now} images, and had {trained.n_images} when the SAE was trained, "
            "which kept no list of those it held out, so they cannot be told from those it saw; put "
            "them back, or measure on other data."
        )
    return source, held_out


def behind(data: str) -> tuple[str, int]:
    """The images that a store was made from and how many it holds out; other data and 0."""
    if not is_store(data):
        return data, 0
    plan = read_plan(Path(data))
    return plan.data, plan.n_held_out


def _other(data: str, n_images: int, trained: TrainingData) -> tuple[Any, Any, str]:
    """Data that the SAE was not trained on, as far as it can be known."""
    if is_store(data):
        source, held_out = open_source(data, seed=0, n_eval=n_images)
    else:
        whole, n = open_whole(data)
        some = np.random.default_rng(0).permutation(n)
        if trained.seen and whole.content:
            some = np.array(
                [i for i in some if not is_in(whole.content(int(i)), trained.seen)], np.int64
            )
        some = np.sort(some[:n_images])
        if not len(some):
            raise ValueError(f"--data {data}: the SAE was trained on every image of it.")
        source = held_out = replace(whole, numbers=some, name=f"{data}, {len(some)} images")
    why = "the SAE does not say what it was trained on, so take care that it never saw them"
    if trained.seen and not is_store(data) and source.content:
        why = "none of them is an image that the SAE was trained on, by size and content"
        with contextlib.suppress(ValueError, OSError):
            source = trained.source()
    elif trained.data:
        why = f"not what the SAE was trained on ({trained.data})"
        try:
            source = trained.source()
        except (ValueError, OSError):
            why = (
                f"the training data {trained.data} is not at hand, so take care they are not in it"
            )
    return source, held_out, f"{held_out.name}: {why}"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _same(data: str, other: str) -> bool:
    return bool(other) and _parts(data) == _parts(other)


def _overlap(data: str, other: str) -> bool:
    """Whether one may hold images of the other; two slices of a dataset's split are taken on trust."""
    if not other:
        return False
    return any(_within(one, two) for one in _parts(data) for two in _parts(other))


def _within(one: Path | str, two: Path | str) -> bool:
    if isinstance(one, Path) and isinstance(two, Path):
        return one.is_relative_to(two) or two.is_relative_to(one)
    return one == two or str(two).startswith(f"{one}[") or str(one).startswith(f"{two}[")


def _parts(data: str) -> frozenset[Path | str]:
    """What a --data consists of: files or a folder, splits of a dataset, or just its name."""
    data = without_column(data)[0]
    if data.startswith("hf:"):
        name, _, splits = data.removeprefix("hf:").partition(":")
        return frozenset(f"hf:{name}:{split}" for split in (splits or "train").split("+"))
    if is_tar_data(data):
        with contextlib.suppress(OSError, ValueError):  # the shards of training may be elsewhere
            return frozenset(path.resolve() for path in shard_paths(data))
    return frozenset([Path(data).resolve() if Path(data).exists() else data])
