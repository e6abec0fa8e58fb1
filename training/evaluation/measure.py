"""Held-out figures of SAEs, as metrics.json states them: one pass over the images for all of them.

Knows how to run a backbone over held-out images and what the figures are called. Knows nothing of
losses or the training loop.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.errors import ImageError
from sae.metrics.reconstruction import Reconstruction, ReconstructionMeter, told
from sae.model import SparseAutoencoder
from training.data.feeds import held_out_activations
from training.data.sources import ImageSource

RARE, DENSE = 1e-4, 0.1
"""A latent is rare if it is active on fewer tokens than that share (but some), dense if on more."""
KINDS = {"cls": "cls", "register": "registers", "patch": "patches", "all": "all"}


class Measured(NamedTuple):
    """Figures of one SAE on held-out images."""

    whole: Reconstruction
    by_kind: dict[str, Reconstruction]
    """Of "all", "cls", "registers" and "patches": those that the SAE reads."""
    rare_fraction: float
    dense_fraction: float
    n_images: int


def measure(
    saes: Sequence[SparseAutoencoder],
    backbone: Backbone,
    held_out: Any,
    *,
    image_batch: int,
    also: Callable[[Float[Tensor, "images tokens d_in"]], None] | None = None,
) -> list[Measured]:
    """Figures of SAEs of one backbone and layer over every held-out image that can be read.

    `held_out`: an ImageSource, or the held-out part of a store.

    `also` sees every batch of activations `(images, tokens, d_in)` too. ValueError if not one image
    can be read.
    """
    where, n_images = saes[0].cfg.backbone, 0
    meters: list[Any] = []
    for activations in held_out_activations(
        held_out, backbone, where.layer, where.tokens, image_batch=image_batch
    ):
        kinds = TokenView(backbone, where.tokens).kinds(activations.shape[1])
        meters = meters or [ReconstructionMeter(sae, kinds) for sae in saes]
        for meter in meters:
            meter.update(activations)
        if also is not None:
            also(activations)
        n_images += len(activations)
    if not meters:
        raise ValueError(f"not one image of {held_out.name} can be read; give other --data.")
    return [_measured(meter, n_images) for meter in meters]


def n_unreadable(held_out: Any, measured: Measured) -> int:
    """How many held-out images could not be read, of a source or when the store was written."""
    if isinstance(held_out, ImageSource):
        return len(held_out.all) - measured.n_images
    return sum(shard.n_unreadable for shard in held_out.manifest.shards["held_out"])


def image_batches(source: ImageSource, size: int) -> Iterator[tuple[list[Image.Image], list[int]]]:
    """The source's images that can be read, and their numbers."""
    numbers = source.all_numbers()
    for start in range(0, len(numbers), size):
        readable = []
        for number in numbers[start : start + size]:
            try:
                readable.append((source.load(number), number))
            except ImageError:
                continue
        if readable:
            images, kept = zip(*readable, strict=True)
            yield list(images), list(kept)


def figures(measured: Measured) -> dict[str, Any]:
    """The figures by name, those by kind of token nested; None for a share of too few tokens."""
    whole = measured.whole
    by_kind = {
        kind: {"fvu": part.fvu, "l0": part.l0, "dead_fraction": part.dead_share}
        for kind, part in measured.by_kind.items()
    }
    return {
        "fvu": whole.fvu,
        "l0": whole.l0,
        "dead_fraction": whole.dead_share,
        "rare_fraction": told(measured.rare_fraction, whole.n_tokens),
        "dense_fraction": measured.dense_fraction,
        "by_token_kind": by_kind,
    }


def metrics_json(measured: Measured, *, data: str, tokens: str, command: str) -> dict[str, Any]:
    """The content of metrics.json: each figure, and the command, data and sample behind it."""
    content = figures(measured)
    sample = {
        "command": command,
        "data": data,
        "n_images": measured.n_images,
        "n_tokens": measured.whole.n_tokens,
        "tokens": tokens,
    }
    return {**content, "evidence": {name: sample for name in content}}


def _measured(meter: ReconstructionMeter, n_images: int) -> Measured:
    whole, frequency = meter.result(), meter.frequency()
    by_kind = {"all": whole}
    for kind, part in meter.by_kind().items():
        by_kind[KINDS[kind]] = part
    rare = float(((frequency > 0) & (frequency < RARE)).double().mean())
    return Measured(whole, by_kind, rare, float((frequency > DENSE).double().mean()), n_images)
