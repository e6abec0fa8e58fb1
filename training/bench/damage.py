"""Damages what PatchLens saves, at seeded places, and counts what is then loaded altered.

    python training/bench/damage.py --n 80

Of every kind of thing (SAE, index, head, training checkpoint, store, part of an index, checkpoint of a head,
and what `saved_figures.py` knows) one is written, then damaged `n` times: bits flipped, numbers and words of
JSON altered, files cut or emptied. Each time it is either refused in one sentence, or loads what was saved (a
space in a JSON file says nothing).
Knows how each kind is written and read. `report` is what the attack on the whole calls.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch

from sae import artifact
from sae.adaptation.files import load_head
from sae.adaptation.heads import LinearHead
from sae.concepts.build.gathering import Gathered, Settings, firings_of
from sae.concepts.build.partial import load_parts, save_part
from sae.concepts.content import IndexContent
from sae.concepts.index import ConceptIndex
from sae.concepts.statistics import HISTOGRAM, N_BINS, required
from sae.config import BackboneRef, SAEConfig
from sae.errors import PatchLensError
from sae.hub import BUNDLED
from sae.model import SparseAutoencoder
from sae.terminal import command
from training.bench import saved_figures as said
from training.data.store import open_store
from training.data.store.manifest import FORMAT, Plan, finish
from training.data.store.reading import read_rows
from training.data.store.writing import write_shards
from training.data.stream import Group, Rows
from training.loop import checkpoints
from training.loop.config import TrainConfig
from training.tasks.fitting import keep, restore

ALTERED, CRASHED, REFUSED, EQUAL = "altered", "crashed", "refused", "as saved"


class Kind(NamedTuple):
    """One kind of thing that is saved."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    """Its content, to be compared by `_same`."""


def sae(folder: Path) -> None:
    """A small top-k SAE."""
    made = SparseAutoencoder(SAEConfig("topk", 6, 12, BackboneRef("bundled", 1), k=3))
    torch.manual_seed(0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    made.save_pretrained(folder)
    (folder / artifact.SAELENS_CONFIG).unlink()  # it is for others, and never read


def read_sae(folder: Path) -> object:
    sae = SparseAutoencoder.from_pretrained(folder)
    return [repr(sae.cfg), dict(sae.state_dict())]


def index(folder: Path) -> None:
    """An index of four latents over six images, with made-up numbers."""
    rng, d, n = np.random.default_rng(0), 4, 6
    ids = np.arange(d * 2, dtype=np.int32).reshape(d, 2) % n
    counts = np.ones(ids.shape, np.uint8)
    near: dict[str, np.ndarray] = {"decoder_ids": ids % d, "cofiring_ids": ids % d}
    near |= {k: rng.random(ids.shape).astype("f2") for k in ("decoder_cosines", "cofiring_scores")}
    header: dict[str, Any] = {
        "format": 2,
        "data": "made up",
        "n_images": n,
        "n_unreadable": 0,
        "n_tokens": 54,
    }
    header |= {
        "n_patches": 54,
        "grid": [3, 3],
        "d_sae": d,
        "sae_sha256": "",
        "tau": 0.2,
        "n_top": 2,
    }
    names: dict[str, list] = {
        "names": ["a", "b", "", "d"],
        "sources": ["text"] * d,
        "scores": [0.1] * d,
    }
    content = IndexContent(
        {**header, "text_tower": None, "embedder": None, "neuron_monosemanticity": None},
        {name: rng.random(d, np.float32) for name in required()}
        | {HISTOGRAM: rng.integers(0, 9, (d, N_BINS)).astype(np.int32)},
        {
            "image_ids": ids,
            "activations": rng.random(ids.shape, np.float32),
            "counts": counts,
            "patches": rng.integers(0, 9, counts.sum()).astype(np.uint16),
            "values": rng.random(counts.sum()).astype(np.float16),
        },
        {
            "starts": np.arange(d + 1),
            "ids": np.zeros(d, np.uint16),
            "tokens": np.ones(d, np.int32),
            "images": np.array([3, 3]),
        },
        near,
        {"latents": rng.random((d, 3)).astype(np.float16)},
        {
            "image_ids": np.arange(n, dtype=np.int32),
            "labels": np.arange(n, dtype=np.int32) % 2,
            "offsets": np.arange(n + 1) * 5,
            "webp": rng.integers(0, 255, n * 5).astype(np.uint8),
        },
        {**names, "confidences": [0.9] * d},
        [f"picture {number}" for number in range(n)],
        ["cat", "dog"],
    )
    ConceptIndex(content).with_layout().save_pretrained(folder)


def read_index(folder: Path) -> object:
    return list(ConceptIndex.from_pretrained(folder)._content)


def head(folder: Path) -> None:
    """The bundled head with the most to say of itself."""
    shutil.copytree(BUNDLED / "heads" / "fluent" / "coop", folder, dirs_exist_ok=True)
    (folder / "metrics.json").unlink()


def read_head(folder: Path) -> object:
    loaded = load_head(folder)
    said = [loaded.head.class_names, loaded.head.settings, loaded.backbone, loaded.task]
    return [*map(repr, said), dict(loaded.head.state_dict())]


CONFIG = TrainConfig("bundled", "world", "run", d_sae=8, k=2, steps=9)


def checkpoint(folder: Path, steps: tuple[int, ...] = (1, 2)) -> None:
    """Two checkpoints of a run."""
    for step in steps:
        state = {
            "scale": 1.5 + step,
            "seconds": 2.0,
            "n_processes": 1,
            "streams": [{"round": step}],
        }
        tensors = {"weights.b_dec": torch.arange(8.0) * step, "since_fired": torch.arange(8)}
        checkpoints.save(folder, step, CONFIG, state, tensors)


def read_checkpoint(folder: Path) -> object:
    (checkpoint,), _ = checkpoints.newest([(folder, CONFIG)])
    state = {name: checkpoint.state[name] for name in checkpoints.STATE_TYPES}
    return [state, checkpoint.tensors]


class _Feed:
    """Made-up activations in groups of four images of three tokens."""

    group = 4

    def read(self, groups: Iterator[Group]) -> Iterator[Rows]:
        generator = torch.Generator().manual_seed(0)
        for group in groups:
            yield Rows(torch.randn(3 * len(group.places), 8, generator=generator))

    def close(self) -> None:
        """Nothing is open."""


def store(folder: Path) -> None:
    """A store of twelve images and four held-out ones."""
    told: dict[str, Any] = {
        "backbone": "b",
        "revision": None,
        "family": "clip",
        "weights_sha256": "ab",
        "layer": 1,
    }
    told |= {"preprocessing": {"mean": [0.5]}, "tokens": "all", "held_out_tokens": "all", "d": 8}
    told |= {"tokens_per_image": 3, "held_out_tokens_per_image": 3, "dtype": "float16", "seed": 0}
    told |= {"data": "made up", "n_images": 12, "n_held_out": 4, "images_per_shard": 4}
    plan = Plan(format=FORMAT, **told)
    plan.write(folder)
    for split in ("train", "held_out"):
        numbers = list(range(len(plan.shard_sizes(split))))
        feed: Any = _Feed()
        write_shards(folder, plan, split, numbers, feed, max_unreadable=0, progress=lambda _n: None)
    finish(folder, plan)
    (folder / "plan.json").unlink()  # read where a store is unfinished, which this one is not


def read_store(folder: Path, hashed: int = 1 << 30) -> object:
    store = open_store(folder, hashed).training
    rows = [
        read_rows(folder / s.file, 0, s.n_rows)
        for part in store.manifest.shards.values()
        for s in part
    ]
    return [repr(store.manifest), torch.cat(rows)]


SETTINGS = Settings(d_sae=5, n_data=20, n_classes=2, n_top=2, n_reference=2, n_sample=3)
ABOUT = {"sae_sha256": "ab", "classes": ["cat", "dog"]}


def part(folder: Path) -> None:
    """A half-done index."""
    rng, numbers, gathered = np.random.default_rng(0), np.arange(12), Gathered(SETTINGS)
    values = rng.random((12, 4, 2), np.float32)
    indices = rng.integers(0, 5, values.shape)
    fired = firings_of(
        values, indices, numbers, numbers % 2, patches=slice(0, 4), d_sae=5, tau=SETTINGS.tau
    )
    gathered.add(fired)
    save_part(folder, "one", gathered, ABOUT)


def read_part(folder: Path) -> object:
    part = load_parts(folder, SETTINGS, ABOUT)
    return None if part is None else part.state()


def _head_in_training(seed: int) -> tuple[LinearHead, torch.optim.Optimizer]:
    made = LinearHead(("cat", "dog"), d_proj=6)
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    return made, optimizer


def prompt(folder: Path) -> None:
    """The checkpoint of a head in training."""
    folder.mkdir(exist_ok=True)
    keep(folder / "checkpoint.safetensors", *_head_in_training(1), 3)


def read_prompt(folder: Path) -> object:
    made, optimizer = _head_in_training(2)
    epoch = restore(folder / "checkpoint.safetensors", made, optimizer)
    moments = [list(state.values()) for state in optimizer.state.values()]
    return [epoch, dict(made.state_dict()), moments]


KINDS: dict[str, Kind] = {
    "SAE": Kind(sae, read_sae),
    "index": Kind(index, read_index),
    "head": Kind(head, read_head),
    "checkpoint": Kind(checkpoint, read_checkpoint),
    "store": Kind(store, read_store),
    "store too large to hash": Kind(store, lambda folder: read_store(folder, hashed=0)),
    "part of an index": Kind(part, read_part),
    "checkpoint of a head": Kind(prompt, read_prompt),
    "figures": Kind(said.figures, said.read_figures),
    "results of heads": Kind(said.heads, said.read_heads),
    "experiments": Kind(said.experiments, said.read_experiments),
    "row of a leaderboard": Kind(said.row, said.read_row),
    "lists of images": Kind(said.lists, said.read_lists),
}


def report(root: Path, n: int = 80, seed: int = 0) -> dict[str, dict[str, int]]:
    """How often each kind of thing, damaged `n` times, was refused, loaded as saved, altered, or crashed."""
    return {name: report_of(kind, root / name, n, seed) for name, kind in KINDS.items()}


def report_of(kind: Kind, root: Path, n: int = 80, seed: int = 0) -> dict[str, int]:
    """The counts of one kind of thing."""
    chance, counts = random.Random(seed), Counter({ALTERED: 0, CRASHED: 0, REFUSED: 0, EQUAL: 0})
    whole = root / "whole"
    whole.mkdir(parents=True)
    kind.write(whole)
    saved = [kind.read(whole)]
    if kind.write is checkpoint:  # a damaged one falls back to the one before it
        checkpoint(root / "older", steps=(1,))
        saved.append(kind.read(root / "older"))
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    for number in range(n):
        folder = root / str(number)
        shutil.copytree(whole, folder)
        damage(folder / files[number % len(files)], chance)
        counts[_outcome(folder, kind, saved)] += 1
        shutil.rmtree(folder)
    return dict(counts)


def _outcome(folder: Path, kind: Kind, saved: list[object]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a file without a hash is older than it
            content = kind.read(folder)
    except PatchLensError:
        return REFUSED
    except Exception as error:  # whatever it is, it is what the count is about
        sys.stderr.write(f"{folder}: {error!r}\n")
        return CRASHED
    same = [_same(content, one) for one in saved]
    return EQUAL if same[0] else REFUSED if any(same) else ALTERED


def damage(path: Path, chance: random.Random) -> None:
    """Flip a bit of a file, alter a value of its JSON, cut it, or empty it."""
    content = path.read_bytes()
    ways = ["flip", "flip", "cut"]
    way = chance.choice(ways + 3 * ["alter"] if path.suffix == ".json" else ways)
    if way == "alter":
        path.write_text(json.dumps(_altered(json.loads(content), chance)), encoding="utf-8")
    elif way == "cut":
        path.write_bytes(content[: chance.randrange(len(content))])
    else:
        place = chance.randrange(len(content))
        flipped = bytes([content[place] ^ 1 << chance.randrange(8)])
        path.write_bytes(content[:place] + flipped + content[place + 1 :])


def _altered(value: Any, chance: random.Random) -> Any:
    """The same JSON with one value in it changed."""
    if isinstance(value, dict) and value:
        key = chance.choice(sorted(value))
        return value | {key: _altered(value[key], chance)}
    if isinstance(value, list) and value:
        place = chance.randrange(len(value))
        return [*value[:place], _altered(value[place], chance), *value[place + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return chance.choice([value + 1, 2 * value + 1, -1 - value, 10**400, None])
    return chance.choice([f"{value}x", None, 3, []])


def _same(one: Any, other: Any) -> bool:
    """Whether two contents are equal, number by number and bit by bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        one, other = one.detach().numpy(), other.detach().numpy()
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


@command
def main(argv: list[str]) -> None:
    """Print the counts as JSON; they are the command's status too."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--n", type=int, default=80, help="damages of each kind of thing")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as root:
        counts = report(Path(root), options.n, options.seed)
    print(json.dumps(counts, indent=1))  # noqa: T201
    if bad := sum(each[ALTERED] + each[CRASHED] for each in counts.values()):
        raise ValueError(f"{bad} damaged things were loaded altered, or ended in no sentence.")


if __name__ == "__main__":
    sys.exit(main())
