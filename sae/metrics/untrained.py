"""Dictionaries that nobody trained, as sparse as an SAE: what a score of its latents has to beat.

Knows activations and how often latents fire. Knows nothing of SAEs, images or scores. Three of them:

    sparse neurons      every dimension, up and down, above a threshold at which it fires as often as a latent
    random directions   the k largest of a token's products with random unit directions
    random tokens       the same, with tokens of the data, less their mean, as directions

Sparsity alone raises scores such as MonoSemanticity, and so do directions along which the data lies; what
training adds is what a score has above these. `k` and the number of units are such that a unit fires as often
as a latent does on average, however wide the SAE is, so that memory is bounded.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from sae.sparse import SparseLatents

SPARSE_NEURONS, RANDOM_DIRECTIONS, RANDOM_TOKENS = (
    "sparse neurons",
    "random directions",
    "random tokens",
)
CHANCE = "chance"
"""What stands beside them where scores are told: that of units which fire on images by chance."""
NAMES = (SPARSE_NEURONS, RANDOM_DIRECTIONS, RANDOM_TOKENS)
MOST_UNITS = 2048
"""Units of a dictionary, unless one in so many would already fire too often."""
TOKENS_AT_ONCE = 4096


class Untrained(NamedTuple):
    """units = relu((x - centre) @ directions.T - thresholds), then the k largest of a token."""

    name: str
    centre: Float32[Tensor, " d_in"]
    directions: Float32[Tensor, "n_units d_in"]
    thresholds: Float32[Tensor, " n_units"]
    k: int | None

    @property
    def n_units(self) -> int:
        """Size of the dictionary."""
        return len(self.directions)

    def __call__(self, x: Float[Tensor, "tokens d_in"]) -> Float32[Tensor, "tokens n_units"]:
        """Units `(tokens, n_units)` of activations `(tokens, d_in)`, on their device."""
        centre, directions, thresholds = (part.to(x.device) for part in self[1:4])
        units = ((x.float() - centre) @ directions.T - thresholds).relu_()
        if self.k is None:
            return units
        values, places = units.topk(min(self.k, self.n_units), dim=1)
        return torch.zeros_like(units).scatter_(1, places, values)

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "tokens d_in"]) -> SparseLatents:
        """The active units of activations `(tokens, d_in)`, `(tokens, n)`, strongest first."""
        parts = []
        for part in x.split(TOKENS_AT_ONCE):
            units = self(part)
            n = self.k or max(1, int((units > 0).sum(1).max()))
            parts.append(SparseLatents(*units.topk(min(n, self.n_units), dim=1)))
        return SparseLatents.join(parts)

    @torch.no_grad()
    def means(self, x: Float[Tensor, "images tokens d_in"]) -> Float64[Tensor, "images n_units"]:
        """Means over tokens, as an image's latents are taken: `(images, n_units)` float64."""
        at_once = max(1, TOKENS_AT_ONCE // max(1, x.shape[1]))
        parts = [
            self(part.flatten(0, 1)).view(len(part), -1, self.n_units).mean(1, dtype=torch.float64)
            for part in x.split(at_once)
        ]
        return torch.cat(parts)


def untrained(
    sample: Float[Tensor, "tokens d_in"],
    frequency: Float[Tensor, " d_sae"],
    *,
    seed: int = 0,
) -> tuple[Untrained, ...]:
    """The dictionaries of `NAMES` for latents that fire on these shares of tokens, `(d_sae)`.

    `sample` gives centre, thresholds and the random tokens: a few thousand tokens of many images.
    ValueError if no latent fires or the sample has fewer than two tokens.
    """
    fires = frequency.detach().double().cpu()
    l0, x = float(fires.sum()), sample.detach().float().cpu()
    if x.dim() != 2 or len(x) < 2 or l0 <= 0:
        raise ValueError(
            f"untrained: got a sample {tuple(sample.shape)} and {l0:g} latents a token; expected "
            "two tokens or more and latents that fire."
        )
    generator = torch.Generator().manual_seed(seed)
    n, k = size_for(len(fires), l0)
    centre = x.mean(0)
    away = x - centre
    some = torch.randperm(len(x), generator=generator)[:n]
    random = torch.randn(n, x.shape[1], generator=generator)
    signs = torch.cat([torch.eye(x.shape[1]), -torch.eye(x.shape[1])])
    at = thresholds_for(torch.cat([away, -away], 1), fires[fires > 0], generator)
    zeros = torch.zeros(n)
    tokens = F.normalize(away[some], dim=1)
    return (
        Untrained(SPARSE_NEURONS, centre, signs, at, None),
        Untrained(RANDOM_DIRECTIONS, centre, F.normalize(random, dim=1), zeros, k),
        Untrained(RANDOM_TOKENS, centre, tokens, zeros[: len(tokens)], k),
    )


def size_for(d_sae: int, l0: float) -> tuple[int, int]:
    """Units of a dictionary, and how many of them fire, for latents of which l0 of d_sae do."""
    n = max(min(d_sae, MOST_UNITS), int(np.ceil(d_sae / l0)))
    return n, max(1, round(l0 * n / d_sae))


def thresholds_for(
    units: Float[Tensor, "tokens n_units"],
    frequency: Float[Tensor, " n_alive"],
    generator: torch.Generator,
) -> Float32[Tensor, " n_units"]:
    """Thresholds `(n_units)` above which units fire as often as latents: frequencies spread evenly over
    those of the latents, dealt out at random."""
    n_tokens, n_units = units.shape
    spread = torch.linspace(0, 1, n_units + 2, dtype=torch.float64)[1:-1]
    wanted = frequency.double().quantile(spread)[torch.randperm(n_units, generator=generator)]
    rank = (wanted * n_tokens).round().long().clamp(1, n_tokens - 1)
    falling = units.sort(dim=0, descending=True).values
    return falling.gather(0, rank[None])[0].float()
