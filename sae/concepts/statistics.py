"""What a statistic of a latent is: one table, from which everything that builds, stores, checks, searches or
shows statistics reads.

Knows numbers, their names, and what people are told of them; knows no files, models or screens. One more
statistic is one more entry of the table: here, or from outside by `register_statistic` (docs/extending.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32, Int64, Num

from sae.metrics.entropy import exemplar_entropy

N_BINS = 32
HISTOGRAM = "histogram"
"""Lies beside the statistics in an index's file, and is none."""


def histogram_edges() -> Float64[np.ndarray, " n_edges"]:
    """N_BINS + 1 edges, half an octave apart, from 2^-10 to 2^6; the same for every latent, so that
    histograms of two data sets can be added."""
    return 2.0 ** (np.arange(N_BINS + 1) / 2 - 10)


@dataclass(frozen=True)
class Facts:
    """What one pass over a data set knows of every latent, before statistics are made of it."""

    n_images: int
    n_tokens: int
    """Tokens that the SAE reads, of all images."""
    n_patches: int
    """How many of these are patches."""
    images: Int64[np.ndarray, " d_sae"]
    """Images in which a latent fires, int64 (d_sae)."""
    patch_images: Int64[np.ndarray, " d_sae"]
    """Images in which it fires on a patch, int64 (d_sae)."""
    tokens: Int64[np.ndarray, " d_sae"]
    """Tokens on which it fires, int64 (d_sae)."""
    patch_tokens: Int64[np.ndarray, " d_sae"]
    """Patches on which it fires, int64 (d_sae)."""
    mean_sum: Float64[np.ndarray, " d_sae"]
    """Sum over images of the mean activation over all tokens, float64 (d_sae)."""
    patch_mean_sum: Float64[np.ndarray, " d_sae"]
    """Sum over images of the mean activation over patches, float64 (d_sae)."""
    maximum: Float32[np.ndarray, " d_sae"]
    """Largest activation on any token, float32 (d_sae)."""
    histogram: Int32[np.ndarray, "d_sae n_bins"]
    """Images by maximum activation between `histogram_edges`, int32 (d_sae, N_BINS)."""
    reference_labels: Int[np.ndarray, "d_sae n"]
    """Classes of the images of largest mean activation, int32 (d_sae, n), -1 for no image or none."""
    reference_means: Float32[np.ndarray, "d_sae n"]
    """Their mean activations, falling, float32 (d_sae, n)."""
    monosemanticity: Float[np.ndarray, " d_sae"] | None
    """MonoSemanticity score, (d_sae); None where the pass had no image encoder to measure it by."""
    decoder: Float32[np.ndarray, "d_sae d_in"]
    """The SAE's decoder rows, float32 (d_sae, d_in)."""


class Indexed(Protocol):
    """What of an index statistics are read from."""

    names: list[str]
    name_scores: Float32[np.ndarray, " d_sae"]
    name_confidences: Float32[np.ndarray, " d_sae"]
    statistics: dict[str, np.ndarray]


class Doubt(NamedTuple):
    """From where on a number speaks against trusting a concept, and what is said then."""

    words: str
    above: float = np.inf
    below: float = -np.inf


@dataclass(frozen=True)
class Statistic:
    """One number a latent: how it is called, made, read and shown."""

    name: str
    """In index files, `ConceptIndex.statistics`, tables and searches."""
    label: str
    """What people call it, on the concept card and where colours are chosen."""
    explanation: str
    """What it measures, for people; {n_images} stands for the number of the data set's images."""
    unit: str = ""
    """"share", "activation", "nats", "cosine", …"""
    compute: Callable[[Facts], Num[np.ndarray, " d_sae"] | None] | None = None
    """Numbers (d_sae) from what a pass knows, None where it knows too little. Without it, the
    statistic is measured by other means and added by `ConceptIndex.with_statistics`."""
    read: Callable[[Indexed], Num[np.ndarray, " d_sae"]] | None = None
    """Numbers (d_sae) from an index, for what is not stored among the statistics."""
    required: bool = False
    """Whether every index has it; finite then, while others may be NaN for unknown."""
    lowest: float = -np.inf
    """Smaller numbers stand for unknown."""
    key: str = ""
    """Its name in links and answers of the app; the name itself if not told."""
    column: str = ""
    """Heading of its column in the table of the Map tab; with one, the concept card shows it too."""
    colour: bool = False
    """Whether the dots of the map can be coloured by it."""
    format: Literal["share", "activation", "number", "tiny"] = "number"
    """How it is written: in per cent; as activations are; with two decimals; or as a power of ten
    where it is small."""
    log: bool = False
    """Whether its scale is logarithmic; 0 is unknown then."""
    rising: bool = False
    """Whether a table sorted by it begins with the smallest."""
    doubt: Doubt | None = None
    """What the concept card warns of."""

    @property
    def short(self) -> str:
        """Its name in links and answers of the app."""
        return self.key or self.name

    def values(self, index: Indexed) -> Float64[np.ndarray, " d_sae"] | None:
        """float64 (d_sae), NaN for unknown; None where the index lacks it."""
        stored = self.read(index) if self.read else index.statistics.get(self.name)
        if stored is None:
            return None
        values = np.asarray(stored, np.float64)
        return np.where(values < self.lowest, np.nan, values)


MAP_AXES = {
    "x": ("frequency", "fires in more pictures"),
    "y": ("mean_activation", "mean strength where it fires"),
}
"""Statistics that the map is laid out by, and what grows along the axis."""


def axes() -> dict[str, dict[str, str]]:
    """`MAP_AXES` as the page reads it."""
    return {
        axis: {"name": _table[name].short, "grows": words, "unit": _table[name].unit}
        for axis, (name, words) in MAP_AXES.items()
    }


def table() -> tuple[Statistic, ...]:
    """All statistics that are known, in the order they are shown in."""
    return tuple(_table.values())


def required() -> tuple[str, ...]:
    """Names of the statistics that every index has."""
    return tuple(statistic.name for statistic in _table.values() if statistic.required)


def register_statistic(statistic: Statistic) -> None:
    """Add a statistic to the table; ValueError if its name is taken.

    Indexes that are built from now on carry it, if it has `compute`; and it is shown wherever an
    index that carries it is.
    """
    names = {name for one in table() for name in (one.name, one.short)} | {HISTOGRAM, ""}
    if not names.isdisjoint({statistic.name, statistic.short}) or statistic.required:
        raise ValueError(
            f"Statistic {statistic.name!r} ({statistic.short!r} in the app): expected a new name, none of "
            f"{', '.join(sorted(names - {''}))}, and not `required`: other indexes lack it."
        )
    _table[statistic.name] = statistic


def computed(facts: Facts) -> dict[str, Float32[np.ndarray, " d_sae"]]:
    """Every statistic that a pass gives, float32 (d_sae), by name."""
    made = {one.name: one.compute(facts) for one in table() if one.compute is not None}
    for name, array in made.items():
        if array is not None and np.shape(array) != facts.images.shape:
            raise ValueError(
                f"Statistic {name!r} gives numbers of shape {np.shape(array)}, expected one a latent, "
                f"{facts.images.shape}."
            )
    return {k: np.asarray(v).astype(np.float32) for k, v in made.items() if v is not None}


def values_of(index: Indexed, name: str) -> Float64[np.ndarray, " d_sae"]:
    """A statistic of an index by its name, float64 (d_sae), NaN for unknown; ValueError if none."""
    if name in _table:
        values = _table[name].values(index)
    elif name in index.statistics:
        values = np.asarray(index.statistics[name], np.float64)
    else:
        values = None
    if values is None:
        others = [one.name for one in table() if one.values(index) is not None]
        known = dict.fromkeys([*index.statistics, *others])
        raise ValueError(f"There is no statistic {name!r}; there are {', '.join(known)}.")
    return values


def _entropy(facts: Facts) -> np.ndarray:
    """PatchSAE, section 3: entropy (nats) of the reference images' labels weighted by mean activation;
    -1 where fewer images than are asked for fire or one has no label."""
    labels = facts.reference_labels
    if not labels.size or labels.max() < 0:
        return np.full(len(labels), -1.0)
    entropy = exemplar_entropy(labels, facts.reference_means)
    return np.where(np.isfinite(entropy), entropy, -1)


def _label_std(facts: Facts) -> np.ndarray:
    """PatchSAE, section 3: standard deviation of the reference images' class numbers; -1 as above."""
    if not facts.reference_labels.size:
        return np.full(len(facts.reference_labels), -1.0)
    return np.where(_entropy(facts) < 0, -1, facts.reference_labels.std(1))


def _confidence(index: Indexed) -> np.ndarray:
    named = np.array([bool(name) for name in index.names], bool)
    return np.where(named, index.name_confidences, np.nan)


OURS: Sequence[Statistic] = (
    Statistic(
        "frequency",
        "Fires in",
        "share of the data set's {n_images} pictures in which it fires",
        unit="share",
        compute=lambda facts: facts.images / max(facts.n_images, 1),
        required=True,
        column="Fires in",
        format="share",
        log=True,
    ),
    Statistic(
        "token_frequency",
        "Fires on tokens",
        "share of all tokens with an activation above 0",
        unit="share",
        compute=lambda facts: facts.tokens / max(facts.n_tokens, 1),
        required=True,
        format="share",
        log=True,
    ),
    Statistic(
        "patch_frequency",
        "Fires on patches",
        "share of all patches with an activation above 0",
        unit="share",
        compute=lambda facts: facts.patch_tokens / max(facts.n_patches, 1),
        required=True,
        format="share",
        log=True,
    ),
    Statistic(
        "mean_activation",
        "Mean strength",
        "averaged over every patch of the pictures it fires in",
        unit="activation",
        compute=lambda facts: facts.mean_sum / np.maximum(facts.images, 1),
        required=True,
        key="mean",
        column="Mean",
        format="activation",
        log=True,
    ),
    Statistic(
        "patch_mean_activation",
        "Mean strength on patches",
        "averaged over the patches alone, of the pictures in which it fires on a patch",
        unit="activation",
        compute=lambda facts: facts.patch_mean_sum / np.maximum(facts.patch_images, 1),
        required=True,
        format="activation",
        log=True,
    ),
    Statistic(
        "max_activation",
        "Strongest",
        "largest activation over the data set",
        unit="activation",
        compute=lambda facts: facts.maximum,
        required=True,
        key="maximum",
        column="Max",
        format="activation",
        log=True,
    ),
    Statistic(
        "entropy",
        "Variety of its pictures",
        "how mixed the labels of its strongest pictures are: 0 is one label only (entropy, nats)",
        unit="nats",
        compute=_entropy,
        required=True,
        lowest=0,
        column="Variety",
        colour=True,
        rising=True,
        doubt=Doubt("its strongest pictures are of many kinds", above=1.4),
    ),
    Statistic(
        "label_std",
        "Spread of class numbers",
        "standard deviation of the class numbers of its strongest pictures",
        unit="classes",
        compute=_label_std,
        required=True,
        lowest=0,
    ),
    Statistic(
        "monosemanticity",
        "Likeness of its pictures",
        "how alike its pictures are, at most 1 (monosemanticity); untrained directions score as high",
        unit="cosine",
        compute=lambda facts: facts.monosemanticity,
        column="Likeness",
        colour=True,
        doubt=Doubt("its pictures look little alike", below=0.1),
    ),
    Statistic(
        "confidence",
        "Fit of the name",
        "how much surer the name is than all other words",
        unit="share",
        read=_confidence,
        colour=True,
    ),
    Statistic(
        "name_score",
        "Score of the name",
        "how much more its pictures look like the name than like nothing in particular",
        unit="cosine",
        read=lambda index: index.name_scores,
    ),
    Statistic(
        "decoder_norm",
        "Length of the direction",
        "length of its direction (decoder row)",
        unit="activation",
        compute=lambda facts: np.linalg.norm(facts.decoder, axis=1),
        required=True,
    ),
    Statistic(
        "steerability",
        "Effect on words",
        "how far it moves a model's words when it is turned up (steerability)",
        unit="probability²",
        column="Effect",
        colour=True,
        format="tiny",
    ),
    Statistic(
        "steering_power",
        "Steering power",
        "the most that a word's probability grows when it is turned up",
        unit="probability",
    ),
)
"""The library's own. Those of PatchSAE (section 3): frequency, the means and the label spreads."""
_table: dict[str, Statistic] = {statistic.name: statistic for statistic in OURS}
