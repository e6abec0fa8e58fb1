"""One look at every photo: how strongly each unit fires, what the classifier says of the whole photo and of
the regions where latents fire.

Knows backbones whose classifier is linear in the hooked layer, and SAEs. Knows no labels:
what is gathered here names latents (`names`) and is measured (`figures`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.classes import ClassReadout
from sae.model import SparseAutoencoder

Units = Callable[[Float[Tensor, "tokens d_in"]], Float[Tensor, "tokens units"]]
"""Activations of one photo's tokens to any units."""
LATENTS = "latents"
IMAGE_BATCH = 4
"""Photos per forward: a convolutional network on a CPU is slower with more of them."""
N_EXEMPLARS = 9
"""Photos of a latent whose lit regions the classifier is asked about."""


class Seen(NamedTuple):
    """What a look at n photos gives; photos in their order."""

    firing: dict[str, Float32[np.ndarray, "rows units"]]
    """By kind of unit, LATENTS among them: the largest activation on any token; of others than latents in
    the rows of `others_on` only."""
    said: Float32[np.ndarray, "n classes"]
    """The classifier's probabilities for whole photos."""
    exemplars: Int64[np.ndarray, "d_sae m"]
    """Numbers of the photos on which a latent is strongest, strongest first; -1 for none."""
    regions: Float32[np.ndarray, "d_sae classes"]
    """The classifier's mean probabilities for the lit regions of these; 0 for latents without any."""
    border: Float32[np.ndarray, " d_sae"]
    """Share of a latent's activation that lies on the outermost positions; 0 where it never fires."""

    @property
    def n_regions(self) -> Int64[np.ndarray, " d_sae"]:
        """Exemplars of each latent."""
        return (self.exemplars >= 0).sum(1)


@torch.no_grad()
def look(
    photos: Iterable[Image.Image],
    backbone: Backbone,
    sae: SparseAutoencoder,
    others: Mapping[str, Units] | None = None,
    others_on: Collection[int] | None = None,
    n_exemplars: int = N_EXEMPLARS,
) -> Seen:
    """Look at all `photos`.

    `others` are units to be measured beside the latents, on the photos of the numbers `others_on` alone if
    these are given: they take as long as the network. ValueError where the classifier is not linear in
    the SAE's layer.
    """
    layer, d_sae = sae.cfg.backbone.layer, sae.cfg.d_sae
    readout = backbone.class_readout(layer)
    if readout is None:
        raise ValueError(f"the classifier of {backbone.id} is not linear in layer {layer}.")
    rim = _rim(*backbone.at(layer).patch_grid)
    firing: dict[str, list[np.ndarray]] = {name: [] for name in (LATENTS, *(others or {}))}
    said: list[Tensor] = []
    best = _Exemplars(d_sae, n_exemplars, len(readout.bias))
    mass, on_rim = (torch.zeros(d_sae, dtype=torch.float64) for _ in range(2))
    for number, x in enumerate(_activations(photos, backbone, layer)):
        said.append(_probabilities(x.mean(0, keepdim=True), readout)[0])
        values = sae.encode(x)
        firing[LATENTS].append(values.amax(0).numpy())
        mass += values.sum(0)
        on_rim += values[rim].sum(0)
        if len(better := best.beaten_by(values.amax(0))):
            lit = values[:, better]
            regions = _probabilities((lit / lit.sum(0)).T @ x, readout)
            best.take(better, number, values.amax(0), regions)
        if others_on is None or number in others_on:
            for name, units in (others or {}).items():
                firing[name].append(units(x).amax(0).numpy())
    return Seen(
        {name: np.stack(rows).astype(np.float32) for name, rows in firing.items()},
        torch.stack(said).numpy(),
        *best.result(),
        (on_rim / mass.clamp(min=1e-12)).float().numpy(),
    )


class _Exemplars:
    """The strongest photos of every latent so far, and what the classifier says of their lit regions."""

    def __init__(self, d_sae: int, n: int, n_classes: int) -> None:
        self._strength = torch.zeros(d_sae, n)
        self._numbers = torch.full((d_sae, n), -1)
        self._regions = torch.zeros(d_sae, n, n_classes)

    def beaten_by(self, strength: Float[Tensor, " d_sae"]) -> Int64[Tensor, " m"]:
        """Latents that are stronger than on the weakest of their exemplars."""
        return (strength > self._strength.amin(1)).nonzero()[:, 0]

    def take(self, latents: Tensor, number: int, strength: Tensor, regions: Tensor) -> None:
        """Put a photo in the place of the weakest exemplar of each of `latents`."""
        weakest = self._strength[latents].argmin(1)
        self._strength[latents, weakest] = strength[latents]
        self._numbers[latents, weakest] = number
        self._regions[latents, weakest] = regions

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers, strongest first, and mean probabilities."""
        order = self._strength.argsort(dim=1, descending=True, stable=True)
        numbers = self._numbers.gather(1, order)
        n = (numbers >= 0).sum(1, keepdim=True).clamp(min=1)
        return numbers.numpy(), (self._regions.sum(1) / n).numpy()


def _activations(
    photos: Iterable[Image.Image], backbone: Backbone, layer: int
) -> Iterable[Float[Tensor, "tokens d_in"]]:
    """The tokens of one photo after the other."""
    waiting: list[Image.Image] = []
    for photo in photos:
        waiting.append(photo)
        if len(waiting) == IMAGE_BATCH:
            yield from backbone.activations(waiting, layer).float()
            waiting = []
    if waiting:
        yield from backbone.activations(waiting, layer).float()


def _probabilities(pooled: Tensor, readout: ClassReadout) -> Tensor:
    return (pooled @ readout.weights.float().T + readout.bias.float()).softmax(1)


def _rim(rows: int, columns: int) -> Tensor:
    """Which positions of a grid, row by row, are its outermost ones; bool (rows * columns)."""
    grid = torch.ones(rows, columns, dtype=torch.bool)
    grid[1:-1, 1:-1] = False
    return grid.flatten()
