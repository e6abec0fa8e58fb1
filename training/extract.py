"""Write the activations of a vision transformer to disk, once, for any number of training runs.

    python training/extract.py --backbone bundled --layer -2 --data path/to/images --out STORE
    accelerate launch --multi_gpu --num_processes 4 training/extract.py …      in parallel
    accelerate launch training/train.py --backbone bundled --layer -2 --data STORE …

Stopped at any moment, the same command goes on: shards are written whole and never twice.
Knows the order of things and the command line; what a store is stands in `training.data.store`.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch
from tqdm import tqdm

from sae import hub
from sae.backbones import Backbone
from sae.backbones.tokens import TokenView, n_random
from sae.images import MAX_UNREADABLE
from sae.terminal import command, described, local_path
from training.data import record
from training.data.feeds import ImageFeed, workers_for
from training.data.sources import ImageSource, open_source
from training.data.store import is_store, open_store
from training.data.store.manifest import DTYPES, SPLITS, Plan, finish, plan_for, read_manifest
from training.data.store.reading import verify
from training.data.store.writing import images_per_shard, missing, write_shards
from training.launch import locked, processes

KEPT = "whole shards are kept, and the same command goes on from them"


@command
def main(argv: list[str]) -> None:
    """Write, or check, what the command line says."""
    options = parse(argv)
    if options.check:
        return print(check(Path(options.out)))  # noqa: T201
    with processes(threads=options.threads) as state:
        try:
            with locked(Path(options.out)) if state.is_main_process else contextlib.nullcontext():
                extract(options, state.process_index, state.num_processes, state.device)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(KEPT) from None
    return None


def extract(options: argparse.Namespace, rank: int, world: int, device: torch.device) -> None:
    """Write this process's shards; the last process to end writes the manifest."""
    out = Path(options.out)
    n_random(options.tokens)
    if is_store(options.data):
        raise ValueError(f"--data {options.data} is a store already; give the images themselves.")
    sources = open_source(options.data, seed=options.seed, n_eval=options.eval_images)
    backbone = Backbone.from_pretrained(
        options.backbone, revision=options.backbone_revision, device=device
    ).at(options.layer)
    TokenView(backbone, options.tokens)  # refuses what the backbone does not have
    plan = plan_of(options, backbone, sources)
    plan.write(out)
    if (
        options.resume
        and rank == 0
        and len(missing(out, plan, "train", 0, 1)) == len(plan.shard_sizes("train"))
    ):
        print(f"--resume: no shard in {out} yet; beginning with the first")  # noqa: T201
    training = sources[0].first(options.images)
    if rank == 0:
        now = record.record_of(training, sources[1])
        before, accept = record.read_record(out), options.accept_changed_data
        if said := record.keep(out, before, now, accept=accept, by_number=True):
            print(f"{said}; the shards that are there stay as they are")  # noqa: T201
    losses: list[float] = []
    for split, source in zip(SPLITS, (training, sources[1]), strict=True):
        feed = ImageFeed(
            backbone,
            options.layer,
            source,
            tokens=plan.tokens if split == "train" else plan.held_out_tokens,
            image_batch=options.image_batch,
            seed=options.seed,
            workers=workers_for(options.workers, device),
            substitutes=False,
        )
        losses += _split(out, plan, split, feed, options.max_unreadable, rank, world)
    whole = finish(out, plan)
    if not whole:
        return print(f"process {rank} is done; others still write.")  # noqa: T201
    print(summary(out, losses))  # noqa: T201
    return None


def _split(
    out: Path, plan: Plan, split: str, feed: ImageFeed, share: float, rank: int, world: int
) -> list[float]:
    """Write what is missing of a split, with a progress bar on the first process."""
    numbers = missing(out, plan, split, rank, world)
    sizes = plan.shard_sizes(split)
    total = sum(sizes[rank::world])
    initial = total - sum(sizes[number] for number in numbers)
    what = {"train": "images", "held_out": "held-out images"}[split]
    with tqdm(
        total=total, initial=initial, unit="image", desc=what, disable=rank > 0, mininterval=0.5
    ) as bar:
        return write_shards(
            out, plan, split, numbers, feed, max_unreadable=share, progress=bar.update
        )


def plan_of(
    options: argparse.Namespace, backbone: Backbone, sources: tuple[ImageSource, ImageSource]
) -> Plan:
    """What the command line asks to be written."""
    training, held_out = sources[0].first(options.images), sources[1]
    if training.numbers is None:
        raise ValueError(f"--data {options.data} has no end; say how much of it with --images N.")
    n_images, per_image = len(training.numbers), TokenView(backbone, options.tokens).n_trained
    return plan_for(
        backbone,
        options.layer,
        options.tokens,
        images_per_shard=options.shard_images
        or images_per_shard(n_images, per_image, backbone.d_model),
        dtype=options.dtype,
        data=options.data,
        seed=options.seed,
        n_images=n_images,
        n_held_out=len(held_out.all),
    )


def summary(out: Path, losses: list[float]) -> str:
    """One line on a finished store."""
    manifest = read_manifest(out)
    train, plan = manifest.shards["train"], manifest.plan
    size = sum(shard.n_bytes for part in manifest.shards.values() for shard in part)
    cost = f"; {plan.dtype} costs an FVU of {max(losses):.1e} at most" if losses else ""
    return (
        f"{sum(s.n_rows for s in train):,} activations of {sum(s.n_images for s in train):,} images "
        f"({sum(s.n_unreadable for s in train):,} unreadable) and "
        f"{sum(s.n_images for s in manifest.shards['held_out']):,} held-out images are in {out} "
        f"({size / 2**20:,.1f} MiB{cost})"
    )


def check(out: Path) -> str:
    """Hash a whole store; says that it is intact, or raises ArtifactError."""
    store = open_store(out)
    shards = [shard for part in store.training.manifest.shards.values() for shard in part]
    verify(out, shards)
    return f"{out}: all {len(shards)} shards are as they were written"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(
        description=described(__doc__.split("\n\nStopped")[0], "extract"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--backbone", help="'bundled', a folder or a Hub id")
    add("--layer", type=int, default=-2, help="layer to read, from 0; -1 is the last (default: -2)")
    add("--data", help="images, as for patchlens train")
    add("--out", required=True, help="folder of the store")
    add("--tokens", default="all", help="all, patches, cls or random:N (default: all)")
    add("--dtype", default="float16", choices=DTYPES, help="numbers on disk (default: float16)")
    add("--images", type=int, help="at most this many training images")
    add("--eval-images", type=int, default=512, help="held-out images, at most 5 %% of a folder")
    add("--image-batch", type=int, default=32, help="images per forward (default: 32)")
    add("--shard-images", type=int, help="images of a shard (default: a 32nd, at most 256 MiB)")
    add("--seed", type=int, default=0, help="seed of random:N, of the order and of the emoji world")
    add("--workers", type=int, help="processes that open images, as for patchlens train")
    add(
        "--max-unreadable",
        type=float,
        default=MAX_UNREADABLE,
        help="share of images that may be unreadable",
    )
    add("--threads", type=int, help="CPU threads (default: all cores, shared by the processes)")
    add("--backbone-revision", help="branch, tag or commit of the backbone")
    add("--check", action="store_true", help="only hash the store in --out and compare")
    add(
        "--resume",
        action="store_true",
        help="go on; it does so anyway, and begins where nothing is",
    )
    add(
        "--accept-changed-data",
        action="store_true",
        help="go on though pictures of the same names hold something else now",
    )
    options = made.parse_args(argv)
    for name in ("images", "eval_images", "image_batch", "shard_images"):
        value = getattr(options, name)
        if value is not None and value < 1:
            made.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.check:
        return options
    if None in (options.backbone, options.data):
        made.error("--backbone and --data are needed (or --check, for a store that is there)")
    options.backbone = local_path(options.backbone, hub.NAMES)
    options.data = local_path(options.data)
    return options


if __name__ == "__main__":
    sys.exit(main())
