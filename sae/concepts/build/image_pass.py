"""From images to an index's raw facts: backbone, sparse code, and one call to `Gathered` a batch.

Knows data sets by number, backbones and SAEs; knows nothing of files, names or processes. While the model
works on a batch, the next one is read and framed in the background.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.concepts.build.gathering import NEURONS, Firings, Gathered, Settings, firings_of
from sae.concepts.regions import read_code
from sae.errors import ImageError
from sae.images import too_many_unreadable
from sae.metrics.untrained import Untrained, untrained
from sae.model import SparseAutoencoder
from sae.prefetch import prefetch

CALIBRATION_IMAGES = 64
"""Images that the dictionaries beside an SAE are made from."""


class Item(NamedTuple):
    """An image of the data set with its class label and its caption, "" where unknown."""

    image: Image.Image
    label: str = ""
    caption: str = ""


class Data(Protocol):
    """What an index is built over: a name, all class names, a length, and images by number."""

    name: str

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Item:
        """ImageError where the image cannot be read."""


Embed = Callable[[list[Image.Image]], Float[Tensor, "images d_proj"]]
"""Images to vectors (n, d) that say how alike images are; any encoder."""


class _Read(NamedTuple):
    """One batch, read from disk."""

    numbers: list[int]
    items: list[Item]
    bad: list[int]
    reason: str
    inputs: Any
    """Tensors of the images that could be read; None if there are none."""


def settings_for(data: Data, sae: SparseAutoencoder, **options: Any) -> Settings:
    """The settings of a pass over `data`; ValueError for an empty data set or too many classes."""
    if not len(data):
        raise ValueError(f"{data.name}: it has no images; an index needs at least one.")
    return Settings(sae.cfg.d_sae, len(data), len(data.classes), **options)


def gather(
    data: Data,
    backbone: Backbone,
    sae: SparseAutoencoder,
    gathered: Gathered,
    batches: Iterable[Int[np.ndarray, " _"]],
    *,
    embed: Embed | None = None,
    beside: Sequence[Untrained] = (),
    done: Callable[[int], None] = lambda _n: None,
) -> None:
    """Add batches of image numbers to `gathered`; after each, `done(number of images)`.

    Where there is `embed`, raw neurons and the dictionaries `beside` are measured by it as latents are.

    Images that cannot be opened are counted (`gathered.n_unreadable`); ImageError if they are more
    than MAX_UNREADABLE of all so far.
    """
    for read in prefetch(partial(_read, data, backbone), batches, depth=1):
        if read.bad:
            gathered.skip(np.array(read.bad))
            _check_unreadable(data, gathered, read.reason)
        if read.items:
            fired, x = _firings(read, data, backbone, sae, gathered.settings)
            if embed is None:
                gathered.add(fired)
            else:
                units = {NEURONS: x.mean(1, dtype=torch.float64)}
                units |= {one.name: one.means(x) for one in beside}
                gathered.add(fired, embed([item.image for item in read.items]), units)
        done(len(read.numbers) + len(read.bad))


def untrained_beside(
    data: Data, backbone: Backbone, sae: SparseAutoencoder
) -> tuple[Untrained, ...]:
    """Dictionaries that nobody trained, as sparse as `sae` on a few images from all over `data`.

    () if none of these can be read or no latent fires on them. The same for every process, and again.
    """
    some = np.unique(np.linspace(0, len(data) - 1, CALIBRATION_IMAGES).astype(np.int64))
    tokens, fires = [], torch.zeros(sae.cfg.d_sae)
    for part in np.array_split(some, -(-len(some) // 8)):
        read = _read(data, backbone, part)
        if read.items:
            values, indices, x = read_code(read.inputs, backbone, sae)
            tokens.append(x.flatten(0, 1).float().cpu())
            fires += torch.bincount(
                torch.from_numpy(indices[values > 0]).flatten(), minlength=sae.cfg.d_sae
            )
    if not tokens or not bool(fires.any()):
        return ()
    sample = torch.cat(tokens)
    return untrained(sample, fires / len(sample))


def _read(data: Data, backbone: Backbone, numbers: np.ndarray) -> _Read:
    kept, items, bad, reason = [], [], [], ""
    for number in numbers.tolist():
        try:
            items.append(data[number])
            kept.append(number)
        except ImageError as error:
            bad.append(number)
            reason = str(error)
    inputs = backbone.preprocess([item.image for item in items]) if items else None
    return _Read(kept, items, bad, reason, inputs)


def _check_unreadable(data: Data, gathered: Gathered, reason: str) -> None:
    bad, n = gathered.n_unreadable, int(gathered.counts["seen"].sum())
    if too_many_unreadable(bad, n):
        raise ImageError(
            f"{data.name}: {bad} of {n} images could not be read (the last: {reason}) Remove them "
            "from the data set and start again."
        )


def _firings(
    read: _Read, data: Data, backbone: Backbone, sae: SparseAutoencoder, settings: Settings
) -> tuple[Firings, Tensor]:
    names = [_name(data, number) for number in read.numbers]
    values, indices, x = read_code(read.inputs, backbone, sae, names)
    fired = firings_of(
        values,
        indices,
        np.array(read.numbers),
        np.array([_class_number(data, item.label) for item in read.items]),
        patches=TokenView(backbone, sae.cfg.backbone.tokens).patches,
        d_sae=sae.cfg.d_sae,
        tau=settings.tau,
    )
    return fired, x


def _name(data: Data, number: int) -> str:
    """How people know an image: by its file where the data set says it, else by its number."""
    named = getattr(data, "image_name", None)
    return named(number) if named else f"image {number} of {data.name}"


def _class_number(data: Data, label: str) -> int:
    if not label:
        return -1
    try:
        return data.classes.index(label)
    except ValueError:
        raise ValueError(
            f"{data.name}: an image has the label {label!r}, which is not among the data set's "
            f"{len(data.classes)} classes."
        ) from None
