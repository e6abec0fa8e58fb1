"""What is known of one latent, as plain values. Knows words only; nothing of files or arrays."""

from dataclasses import dataclass
from typing import NamedTuple

LEVELS = ("top", "middle", "low")
"""Exemplars are the strongest images, those around the median, and the weakest that still fire."""


@dataclass(frozen=True)
class Exemplar:
    """An image on which a concept fires."""

    image_id: int
    activation: float
    """Maximum over the image's tokens."""
    label: str
    """Caption of the image, "" if it has none."""
    patches: list[int]
    """Row-major numbers of the strongest firing patches, at most 16, strongest first."""
    values: list[float]
    """Their activations."""


class Neighbour(NamedTuple):
    """A latent near another one."""

    latent: int
    name: str
    score: float
    """Decoder cosine in -1 … 1, or share of images in common in 0 … 1."""


class ClassCount(NamedTuple):
    """A class on whose images a concept fires."""

    label: str
    tokens: int
    """Tokens of the class's images with an activation above tau (PatchSAE, equation 5)."""
    share: float
    """Of all such tokens."""


@dataclass(frozen=True)
class Concept:
    """A latent with its name, statistics and exemplars (statistics as in PatchSAE, section 3)."""

    latent: int
    name: str
    name_source: str
    """"text tower", "labels", "decoder" or "" for none."""
    name_score: float
    name_confidence: float
    """0 … 1; 0 where there is no name."""
    frequency: float
    """Share of images with any activation above 0."""
    token_frequency: float
    """Share of tokens with an activation above 0."""
    mean_activation: float
    """Mean over the images in which it fires of the mean over all tokens."""
    patch_mean_activation: float
    """The same over patches alone, and over the images in which it fires on a patch."""
    max_activation: float
    """Largest activation on any token of the data set."""
    entropy: float
    """Entropy in nats of the labels of the ten images of largest mean activation, weighted by it;
    -1 if unknown."""
    decoder_norm: float
    dead: bool
    rare: bool
    dense: bool
    histogram: list[int]
    """Number of images by maximum activation."""
    histogram_edges: list[float]
    """len(histogram) + 1 logarithmically spaced edges."""
    exemplars: dict[str, list[Exemplar]]
    """By level; no image twice."""
    statistics: dict[str, float]
    """Every statistic of the index by its name; NaN for unknown ones."""
    classes: list[ClassCount]
    """The classes with most tokens, falling."""
    neighbours: list[Neighbour]
    """Latents of nearest decoder direction."""
    cofiring: list[Neighbour]
    """Latents that are most often strong in the same images."""


@dataclass(frozen=True)
class Hit:
    """A concept that a search found."""

    latent: int
    name: str
    score: float
    """The larger the better; what it measures depends on `by`. Scores of one search compare."""
    by: str
    """"name", "meaning", "image", "region", "decoder", "cofiring" or a statistic's name."""
