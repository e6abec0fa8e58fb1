"""Images to shuffled batches of activations, as a stream that can be taken up anywhere.

Knows the shuffle buffer and the token policy; knows images and backbones only by their interfaces.
The stream goes in rounds: a round fills the buffer from the next images, shuffles it, and deals it
out in batches. Every choice follows from the seed and the position, so the state is three numbers
and no random generator has to be saved.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae.backbones import Backbone
from sae.images import ImageError
from training.sources import ImageSource

MAX_UNREADABLE = 0.05
"""Share of images that may be unreadable before the run stops."""


@dataclass
class Position:
    """Where a stream stands: the round, how many of its batches were dealt, its first image."""

    round: int = 0
    batch: int = 0
    image: int = 0


class Stopped(Exception):
    """The stream was asked to stop while it filled its buffer."""


def chosen_tokens(activations: Tensor, backbone: Backbone, policy: str) -> Tensor:
    """The tokens `(images, tokens, d)` that a policy (all, patches or cls) trains on."""
    if policy == "all":
        return activations
    if policy == "cls":
        if not backbone.has_cls:
            raise ValueError(
                f"--tokens cls: {backbone.id} has no CLS token; use --tokens all or patches."
            )
        return activations[:, :1]
    rows, columns = backbone.patch_grid
    return activations[:, backbone.n_prefix : backbone.n_prefix + rows * columns]


def tokens_per_image(backbone: Backbone, policy: str) -> int:
    """How many tokens `chosen_tokens` gives for an image."""
    rows, columns = backbone.patch_grid
    return {"cls": 1, "patches": rows * columns, "all": backbone.n_prefix + rows * columns}[policy]


class ActivationStream:
    """Endless batches `(batch_size, d_model)` of float32 activations on the backbone's device.

    Of a run of `world` processes, process `rank` takes every world-th image. `position` may be set
    before iterating. `should_stop` is asked between forwards; if true, Stopped is raised and
    `position` still says where the last dealt batch ended.
    """

    def __init__(
        self,
        backbone: Backbone,
        layer: int,
        source: ImageSource,
        *,
        tokens: str,
        batch_size: int,
        buffer: int,
        image_batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.backbone, self.layer, self.source, self.tokens = backbone, layer, source, tokens
        self.batch_size, self.buffer, self.image_batch = batch_size, buffer, image_batch
        self.seed, self.rank, self.world, self.should_stop = seed, rank, world, should_stop
        self.position = Position()
        self.n_images = self.n_unreadable = 0
        self._tokens_per_image = tokens_per_image(backbone, tokens)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="images")
        self._ahead: tuple[tuple[int, int], Future] | None = None
        self._pool: Tensor | None = None
        self._order = torch.empty(0, dtype=torch.long)

    def first_buffer(self) -> Tensor:
        """All tokens `(buffer * batch_size, d_model)` of the round at hand, for initialisation."""
        if self._pool is None:
            self._next_image = self._fill()
        return self._pool

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            self.first_buffer()
            while self.position.batch < self.buffer:
                start = self.position.batch * self.batch_size
                self.position.batch += 1
                yield self._pool[self._order[start : start + self.batch_size]]
            self.position = Position(self.position.round + 1, 0, self._next_image)
            self._pool = None

    def _fill(self) -> int:
        """Fill and shuffle the buffer for `position.round`; returns the next image's position."""
        needed, filled, first = self.buffer * self.batch_size, 0, self.position.image
        pool = torch.empty(needed, self.backbone.d_model, device=self.backbone.device)
        while filled < needed:
            if self.should_stop():
                raise Stopped
            n_left = -(-(needed - filled) // self._tokens_per_image)
            n = min(self.image_batch, n_left)
            inputs = self._read(first, n, ahead=n_left - n or self.image_batch)
            first += n
            if inputs is None:
                continue
            found = self.backbone.activations(inputs, self.layer)
            flat = chosen_tokens(found, self.backbone, self.tokens).flatten(0, 1)
            taken = flat[: needed - filled]
            pool[filled : filled + len(taken)] = taken
            filled += len(taken)
        seeds = np.random.SeedSequence((self.seed, self.position.round, self.rank))
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))
        self._pool = pool
        self._order = torch.randperm(needed, generator=generator).to(pool.device)
        return first

    def _read(self, first: int, n: int, *, ahead: int) -> dict[str, Tensor] | None:
        """Inputs of `n` images from place `first`; then the next ones are read in the background.

        `ahead` is how many images will be wanted next; None if none of the n could be read.
        """
        kept, self._ahead = self._ahead, None
        inputs, n_bad, reason = (
            kept[1].result() if kept and kept[0] == (first, n) else self._inputs(first, n)
        )
        wanted = (first + n, min(self.image_batch, ahead))
        self._ahead = wanted, self._reader.submit(self._inputs, *wanted)
        self._count(n, n_bad, reason)
        return inputs

    def _inputs(self, first: int, n: int) -> tuple[dict[str, Tensor] | None, int, str]:
        """The backbone's inputs, how many images were unreadable, and why the last one was."""
        images, reason = [], ""
        for place in range(first, first + n):
            number = self.source.at(place * self.world + self.rank, self.seed)
            try:
                images.append(self.source.load(number))
            except ImageError as error:
                reason = str(error)
        inputs = self.backbone.preprocess(images) if images else None
        return inputs, n - len(images), reason

    def _count(self, n_read: int, n_bad: int, reason: str) -> None:
        self.n_images += n_read
        self.n_unreadable += n_bad
        if self.n_unreadable > max(10, MAX_UNREADABLE * self.n_images):
            raise ImageError(
                f"{self.n_unreadable} of {self.n_images} images could not be read "
                f"(the last: {reason}) Remove them from --data and go on with --resume."
            )
