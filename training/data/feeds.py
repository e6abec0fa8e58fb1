"""Images to activations, group by group: the Feed of the streaming path, and the way to held-out ones.

Knows how a group of places becomes the backbone's inputs (in workers) and then rows (here), and what
stands in for an image that cannot be read. Rounds and shuffling are `training.data.stream`, stores
`training.data.store`.
"""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView, at_positions, random_positions, require_finite
from sae.errors import ImageError
from sae.prefetch import prefetch
from sae.terminal import n_cores
from training.data.sources import ImageSource
from training.data.sources.hugging_face import StreamedSource, open_content
from training.data.store import StoredHeldOut, check_fits
from training.data.stream import Group, Rows

MAX_ATTEMPTS = 12
"""Images tried for one place; twelve unreadable ones in a row end any run."""
MAX_WORKERS = 8


class Opened(NamedTuple):
    """A group of images as the backbone's inputs."""

    inputs: dict[str, Tensor] | None
    """What Backbone.preprocess gives, or None if no image could be read."""
    positions: Int64[Tensor, "images n"] | None
    """With random:N, `(images, N)`: the tokens to take."""
    n_unreadable: int
    reason: str
    names: tuple[str, ...] = ()
    """Of the images."""


@dataclass(frozen=True)
class Opening:
    """Opens the images of places and preprocesses them; runs in workers.

    A request is a list of (place, content): content is None for images by number, else the bytes
    of a streamed row. An image that cannot be read is replaced by another one of the source (of the
    group, if it is streamed), so that every group is whole; with `substitutes` False it is left out.
    """

    source: ImageSource | None
    """None where all contents are given."""
    backbone: Backbone
    seed: int
    n_random: int | None
    n_tokens: int
    substitutes: bool = True

    def __call__(self, request: list[tuple[int, bytes | None]]) -> Opened:
        images: list[Image.Image] = []
        seeds: list[tuple[int, ...]] = []
        n_bad, reason = 0, ""
        for place, content in request:
            for attempt in range(MAX_ATTEMPTS if self.substitutes and content is None else 1):
                try:
                    image, number = self._open(place, content, attempt)
                except ImageError as error:
                    n_bad, reason = n_bad + 1, str(error)
                else:
                    images.append(image)
                    seeds.append(number)
                    break
        if self.substitutes and 0 < len(images) < len(request):
            images = [images[i % len(images)] for i in range(len(request))]
            seeds += [(self.seed, place) for place, _ in request[len(seeds) :]]
        if not images:
            return Opened(None, None, n_bad, reason)
        positions = random_positions(seeds, self.n_random, self.n_tokens) if self.n_random else None
        names = tuple(name_of(self.source, each[-1]) for each in seeds)
        return Opened(self.backbone.preprocess(images), positions, n_bad, reason, names)

    def _open(
        self, place: int, content: bytes | None, attempt: int
    ) -> tuple[Image.Image, tuple[int, ...]]:
        """The image, and the seeds of its random tokens."""
        if content is not None:
            return open_content(content, self.backbone.needed_size), (self.seed, place)
        source = self.source
        assert source is not None, "a request without content needs a source"
        number = (
            source.substitute(place, self.seed, attempt) if attempt else source.at(place, self.seed)
        )
        return source.load(number), (self.seed, source.times_before(place), number)


class ImageFeed:
    """Rows of a source's images: the Feed of the streaming path. See Feed."""

    def __init__(
        self,
        backbone: Backbone,
        layer: int,
        source: ImageSource | StreamedSource,
        *,
        tokens: str,
        image_batch: int,
        seed: int,
        workers: int,
        rank: int = 0,
        world: int = 1,
        substitutes: bool = True,
    ) -> None:
        self.view = TokenView(backbone, tokens)
        self.layer = backbone.resolve_layer(layer)
        self.backbone, self.workers = backbone, workers
        self.rank, self.world, self.group = rank, world, image_batch
        self.source = source
        numbered = (
            source.for_size(backbone.needed_size) if isinstance(source, ImageSource) else None
        )
        self._opening = Opening(
            numbered,
            backbone.without_model(),
            seed,
            self.view.n_drawn,
            self.view.image.stop,
            substitutes,
        )
        self._states: dict[int, Any] = {}
        self._opened: Generator[Opened, None, None] | None = None

    @property
    def rows_per_place(self) -> int:
        """Tokens of an image."""
        return self.view.n_trained

    @property
    def d(self) -> int:
        """Width of the backbone."""
        return self.backbone.d_model

    @property
    def cls_first(self) -> bool:
        """Whether the first row of an image is its only CLS token."""
        return self.view.reads_cls and self.view.n_drawn is None

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.backbone.device

    def read(self, groups: Iterator[Group], state: Any = None) -> Iterator[Rows]:
        """Activations of the groups' images, after `layer`; later layers are not run."""
        source = self.source
        if isinstance(source, StreamedSource):
            requests = self._in_order(source, groups, state)
        else:
            requests = map(_by_number, groups)
        cuda = self.device.type == "cuda"
        self._opened = prefetch(self._opening, requests, workers=self.workers, pin=cuda)
        return map(self._rows, self._opened)

    def n_images(self, n_places: int) -> int:
        """A place is an image."""
        return n_places

    def state(self, round: int) -> Any:
        """Where a streamed dataset stands when the round begins; None for images by number."""
        return self._states.pop(round, None)

    def close(self) -> None:
        """End the workers."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _rows(self, opened: Opened) -> Rows:
        if opened.inputs is None:
            if self._opening.substitutes:
                raise ImageError(
                    f"not one image of a whole group could be read (the last: {opened.reason}) "
                    "Check --data."
                )
            none = torch.empty(0, self.d, device=self.device)
            return Rows(none, opened.n_unreadable, opened.reason)
        inputs = {n: x.to(self.device, non_blocking=True) for n, x in opened.inputs.items()}
        x = self.backbone.activations(inputs, self.layer)
        require_finite(x, opened.names, backbone=self.backbone.id, layer=self.layer)
        chosen = opened.positions
        x = self.view.read(x) if chosen is None else at_positions(x, chosen)
        return Rows(x.flatten(0, 1).float(), opened.n_unreadable, opened.reason)

    def _in_order(
        self, source: StreamedSource, groups: Iterator[Group], state: Any
    ) -> Iterator[list[tuple[int, bytes | None]]]:
        """Requests for a streamed source; a thread reads the rows of the next groups meanwhile."""
        reader = source.reader(self.rank, self.world, state)
        together = (list(span) for _, span in groupby(groups, key=lambda g: (g.round, g.span)))
        for requests, number, standing in prefetch(partial(_take, reader), together):
            self._states[number + 1] = standing
            yield from requests


def name_of(source: ImageSource | None, number: int) -> str:
    """How people know an image: by its path, else by its number, or its place if it is streamed."""
    named = source.image_name if source else None
    return named(number) if named else f"image {number}"


def _by_number(group: Group) -> list[tuple[int, bytes | None]]:
    return [(place, None) for place in group.places]


def _take(reader: Any, groups: list[Group]) -> tuple[list[list[tuple[int, bytes]]], int, Any]:
    """Requests for groups whose places are neighbours, their round, where the reader stands."""
    places = sorted(place for group in groups for place in group.places)
    contents = dict(zip(places, reader.take(len(places)), strict=True))
    requests = [[(place, contents[place]) for place in group.places] for group in groups]
    return requests, groups[0].round, reader.state()


def held_out_activations(
    held_out: ImageSource | StoredHeldOut,
    backbone: Backbone,
    layer: int,
    tokens: str,
    *,
    image_batch: int,
) -> Iterator[Float[Tensor, "images tokens d_in"]]:
    """Held-out activations `(images, tokens, d)`, batch by batch, as an SAE of policy `tokens` reads
    them; images that cannot be read are left out. The one way to held-out data, images or store.
    """
    if isinstance(held_out, StoredHeldOut):
        check_fits(held_out.manifest.plan, held_out.folder, backbone, layer, tokens, held_out=True)
        yield from (x.to(backbone.device) for x in held_out.batches(image_batch))
        return
    view = TokenView(backbone, tokens)
    numbers = held_out.all
    for start in range(0, len(numbers), image_batch):
        images, names = [], []
        for number in numbers[start : start + image_batch]:
            try:
                images.append(held_out.load(number))
            except ImageError:
                continue
            names.append(name_of(held_out, number))
        if images:
            x = view.read(backbone.activations(images, layer))
            require_finite(x, names, backbone=backbone.id, layer=layer)
            yield x


def workers_for(wanted: int | None, device: torch.device) -> int:
    """How many processes open images: as asked, else by this process's share of the cores.

    On a GPU all of them but one, up to 8. On a CPU the backbone takes the cores and one thread keeps
    up with it: none below 8 cores, then one for every 8.
    """
    if wanted is not None:
        return wanted
    share = n_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MAX_WORKERS, share // 8 if device.type == "cpu" else max(1, share - 1))
