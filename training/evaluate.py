"""Held-out figures of an SAE, as metrics.json states them.

Knows how to run a backbone over held-out images and what metrics.json looks like. Knows nothing of
losses or the training loop.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sae.backbones import Backbone
from sae.images import ImageError
from sae.metrics.reconstruction import Reconstruction, ReconstructionMeter
from sae.model import SparseAutoencoder
from training.activations import chosen_tokens
from training.sources import ImageSource


def evaluate(
    sae: SparseAutoencoder, backbone: Backbone, held_out: ImageSource, *, image_batch: int
) -> tuple[Reconstruction, int]:
    """Figures over every held-out image that can be read, and how many those were."""
    meter, n_images = ReconstructionMeter(sae), 0
    for activations in _activations(sae, backbone, held_out, image_batch):
        meter.update(activations)
        n_images += len(activations)
    return meter.result(), n_images


def metrics_json(
    found: Reconstruction, *, n_images: int, data: str, tokens: str, command: str
) -> dict[str, Any]:
    """The content of metrics.json: each figure, and the command, data and sample behind it."""
    figures = {"fvu": found.fvu, "l0": found.l0, "dead_fraction": found.dead_fraction}
    sample = {
        "command": command,
        "data": data,
        "n_images": n_images,
        "n_tokens": found.n_tokens,
        "tokens": tokens,
    }
    return {**figures, "evidence": {name: sample for name in figures}}


def _activations(
    sae: SparseAutoencoder, backbone: Backbone, held_out: ImageSource, image_batch: int
) -> Iterator[Tensor]:
    """Held-out activations `(images, tokens, d_in)`, batch by batch."""
    where = sae.cfg.backbone
    numbers = [int(number) for number in held_out.numbers]
    for start in range(0, len(numbers), image_batch):
        images = []
        for number in numbers[start : start + image_batch]:
            try:
                images.append(held_out.load(number))
            except ImageError:
                continue
        if images:
            found = backbone.activations(images, where.layer)
            yield chosen_tokens(found, backbone, where.tokens)
