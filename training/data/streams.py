"""Endless shuffled batches of activations: from images or from a store, through one interface.

Knows which Feed belongs to a source; the plan of a stream is in `training.data.stream`.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.images import ImageError
from training.data.feeds import Feed
from training.data.image_feed import ImageFeed
from training.data.sources import ImageSource
from training.data.store import StoredHeldOut, StoredRows, StoreFeed, check_fits
from training.data.stream import Stopped, Stream
from training.loop.config import TrainConfig

__all__ = ["Stopped", "Stream", "held_out_activations", "open_stream", "workers_for"]
MAX_WORKERS = 8


def open_stream(
    config: TrainConfig,
    backbone: Backbone,
    layer: int,
    source: object,
    *,
    rank: int = 0,
    world: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
) -> Stream:
    """The Stream of a run: `config.batch_size` rows a step for each of `world` processes.

    `source` is what `training.data.sources.open_source` gave. Raises ValueError for a layer or tokens
    that the backbone does not have, and for a store that was made otherwise.
    """
    return Stream(
        _feed(config, backbone, layer, source, rank, world),
        batch=config.batch_size * world,
        buffer=config.buffer,
        seed=config.seed,
        rank=rank,
        world=world,
        n_shards=config.shards,
        n_steps=config.steps,
        max_unreadable=config.max_unreadable,
        should_stop=should_stop,
    )


def held_out_activations(
    held_out: ImageSource | StoredHeldOut,
    backbone: Backbone,
    layer: int,
    tokens: str,
    *,
    image_batch: int,
) -> Iterator[Tensor]:
    """Held-out activations `(images, tokens, d)`, batch by batch, as an SAE of policy `tokens` reads
    them; images that cannot be read are left out. The one way to held-out data, images or store.
    """
    if isinstance(held_out, StoredHeldOut):
        check_fits(held_out.manifest.plan, held_out.folder, backbone, layer, tokens, held_out=True)
        yield from (x.to(backbone.device) for x in held_out.batches(image_batch))
        return
    view = TokenView(backbone, tokens)
    numbers = [int(number) for number in held_out.numbers]
    for start in range(0, len(numbers), image_batch):
        images = []
        for number in numbers[start : start + image_batch]:
            try:
                images.append(held_out.load(number))
            except ImageError:
                continue
        if images:
            yield view.read(backbone.activations(images, layer))


def workers_for(wanted: int | None, device: torch.device) -> int:
    """How many processes open images: as asked, else by this process's share of the cores.

    On a GPU all of them but one, up to 8. On a CPU the backbone takes the cores and one thread keeps
    up with it: none below 8 cores, then one for every 8.
    """
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MAX_WORKERS, share // 8 if device.type == "cpu" else max(1, share - 1))


def _feed(
    config: TrainConfig, backbone: Backbone, layer: int, source: Any, rank: int, world: int
) -> Feed:
    source = source.first(config.images)
    if isinstance(source, StoredRows):
        check_fits(source.manifest.plan, source.folder, backbone, layer, config.tokens)
        return StoreFeed(source, seed=config.seed, device=backbone.device)
    return ImageFeed(
        backbone,
        layer,
        source,
        tokens=config.tokens,
        image_batch=config.image_batch,
        seed=config.seed,
        workers=workers_for(config.workers, backbone.device),
        rank=rank,
        world=world,
    )
