"""One pass over images: everything that an index needs to know, in memory bounded by its settings.

Knows the rows that a batch of sparse codes lights up, one per (image, latent) that fires (`Firings`), and
what to keep of them; knows nothing of backbones, files or names. A row depends on its own image alone,
nothing depends on the order of images, and `merge` of two parts gives the very bits that one pass over all
images gives (the MonoSemanticity sums alone are float64 sums: equal to about 1e-12).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Float64, Int, Int32, Int64, UInt16
from scipy import sparse

from sae.concepts.build.accumulators import ExactSum, SparseCounts, Table, by_chance, falling
from sae.concepts.statistics import N_BINS, histogram_edges
from sae.metrics.monosemanticity import MonosemanticityMeter

NEURONS = "neurons"
"""The name of raw neurons among what is measured beside latents."""
N_PATCHES = 16
"""Firing patches kept for an exemplar."""


@dataclass(frozen=True)
class Firings:
    """Rows by image, then latent. Per row: image and latent, maximum and sums over tokens."""

    numbers: Int64[np.ndarray, " images"]
    """Numbers of the images in the data set, int64 (images)."""
    labels: Int32[np.ndarray, " images"]
    """Their classes, -1 for none, int32 (images)."""
    n_tokens: int
    """Tokens of one image that the SAE reads."""
    n_patches: int
    """How many of these are patches."""
    image: Int32[np.ndarray, " rows"]
    """Place in `numbers`, int32 (rows)."""
    latent: Int32[np.ndarray, " rows"]
    """int32 (rows)."""
    maximum: Float32[np.ndarray, " rows"]
    """Largest activation over all tokens, float32 (rows)."""
    total: Float64[np.ndarray, " rows"]
    """Sum over all tokens, float64 (rows)."""
    patch_total: Float64[np.ndarray, " rows"]
    """Sum over patches, float64 (rows)."""
    tokens: Int64[np.ndarray, " rows"]
    """Tokens on which the latent fires, int64 (rows)."""
    patches: Int64[np.ndarray, " rows"]
    """Patches on which it fires, int64 (rows)."""
    above: Int64[np.ndarray, " rows"]
    """Tokens on which it exceeds tau, int64 (rows)."""
    place: Int32[np.ndarray, " n_firing"] = field(repr=False)
    """Patch number of every firing patch, row by row, strongest first within a row, int32."""
    value: Float32[np.ndarray, " n_firing"] = field(repr=False)
    """Its activation, float32."""

    @cached_property
    def number(self) -> Int64[np.ndarray, " rows"]:
        """Number of the image in the data set, int64 (rows)."""
        return self.numbers[self.image]

    @cached_property
    def mean(self) -> Float64[np.ndarray, " rows"]:
        """Mean over all tokens (PatchSAE's image-level activation), float64 (rows)."""
        return self.total / self.n_tokens

    @cached_property
    def starts(self) -> Int64[np.ndarray, " n_starts"]:
        """Where the patches of each row start in `place`, int64 (rows + 1)."""
        return np.concatenate([[0], np.cumsum(self.patches)])

    def strongest_patches(
        self, rows: Int[np.ndarray, " rows"], n: int = N_PATCHES
    ) -> tuple[UInt16[np.ndarray, "rows n"], Float16[np.ndarray, "rows n"]]:
        """The n strongest patches of some rows: uint16 and float16 (rows, n), value 0 for none."""
        at = self.starts[rows][:, None] + np.arange(n)
        inside = at < self.starts[rows + 1][:, None]
        at = np.where(inside, at, 0)
        if not len(self.place):
            return np.zeros(at.shape, np.uint16), np.zeros(at.shape, np.float16)
        values = np.minimum(self.value[at], np.finfo(np.float16).max).astype(np.float16)
        tiny = np.finfo(np.float16).smallest_subnormal
        values = np.where(inside, np.maximum(values, tiny), 0).astype(np.float16)
        return np.where(inside, self.place[at], 0).astype(np.uint16), values


def firings_of(
    values: Float[np.ndarray, "images tokens n"],
    indices: Int[np.ndarray, "images tokens n"],
    numbers: Int[np.ndarray, " images"],
    labels: Int[np.ndarray, " images"],
    *,
    patches: slice,
    d_sae: int,
    tau: float,
) -> Firings:
    """The rows of sparse codes `values`, `indices` (images, tokens, n); values above 0 fire.

    `patches` says which tokens are patches. `tau` is the threshold of PatchSAE's equation 4.
    """
    image, token, column = np.nonzero(values > 0)
    value = values[image, token, column].astype(np.float32, copy=False)
    key = image * d_sae + indices[image, token, column]
    order = np.lexsort((token, -value, key))
    key, value, token = key[order], value[order], token[order]
    first = np.ones(len(key), bool)
    first[1:] = key[1:] != key[:-1]
    starts = np.flatnonzero(first)
    is_patch = (token >= patches.start) & (token < patches.stop)

    def per_row(numbers: np.ndarray) -> np.ndarray:
        return np.add.reduceat(numbers, starts) if len(starts) else numbers[:0]

    wide = value.astype(np.float64)
    rows = key[starts]
    return Firings(
        numbers=np.asarray(numbers, np.int64),
        labels=np.asarray(labels, np.int32),
        n_tokens=values.shape[1],
        n_patches=patches.stop - patches.start,
        image=(rows // d_sae).astype(np.int32),
        latent=(rows % d_sae).astype(np.int32),
        maximum=value[starts],
        total=per_row(wide),
        patch_total=per_row(wide * is_patch),
        tokens=per_row(np.ones(len(key), np.int64)),
        patches=per_row(is_patch.astype(np.int64)),
        above=per_row((value > tau).astype(np.int64)),
        place=(token[is_patch] - patches.start).astype(np.int32),
        value=value[is_patch],
    )


@dataclass(frozen=True)
class Settings:
    """What is asked for, and so how much memory a pass takes: see `Gathered`."""

    d_sae: int
    n_data: int
    """Images of the data set; their numbers are below this."""
    n_classes: int = 0
    tau: float = 0.2
    """PatchSAE's equation 4: a token counts for its image's class if its activation exceeds this."""
    n_top: int = 9
    """Strongest images kept for a latent."""
    n_reference: int = 10
    """Images of largest mean activation that label entropy is taken over (PatchSAE, section 3)."""
    n_sample: int = 30
    """Images drawn by chance among those on which a latent fires: exemplars by decile."""
    n_cofiring_images: int = 16384
    """Images drawn by chance whose strongest latents are kept, for co-activation."""
    n_cofiring: int = 64
    """Strongest latents kept of such an image."""

    def __post_init__(self) -> None:
        if not 0 < self.n_data < 2**31 or not 0 <= self.n_classes < 2**16:
            raise ValueError(
                f"An index takes 1 to {2**31 - 1} images and at most {2**16 - 1} classes; got "
                f"{self.n_data} and {self.n_classes}."
            )
        if not (np.isfinite(self.tau) and self.tau >= 0):
            raise ValueError(f"tau must be a number of at least 0, got {self.tau}.")


class Gathered:
    """What is known after some of the images; memory is O(d_sae × kept rows + d_sae × classes seen)."""

    def __init__(
        self,
        settings: Settings,
        *,
        d_embedding: int | None = None,
        beside: Mapping[str, int] | None = None,
    ) -> None:
        """`d_embedding`: MonoSemanticity is measured, by vectors so long, of the latents and of the units
        `beside`: how many, by name (neither "latents" nor with a dot)."""
        self.settings = settings
        n = settings.d_sae
        shown = {"patches": ((N_PATCHES,), np.uint16), "values": ((N_PATCHES,), np.float16)}
        self.tables = {
            "top": Table(n, settings.n_top, shown),
            "reference": Table(n, settings.n_reference, {"labels": ((), np.int32)}),
            "sample": Table(n, settings.n_sample, shown | {"activations": ((), np.float32)}),
            "cofiring": Table(
                1, settings.n_cofiring_images, {"latents": ((settings.n_cofiring,), np.int32)}
            ),
        }
        self.sums = {"mean": ExactSum(n), "patch_mean": ExactSum(n)}
        self.class_tokens = SparseCounts()
        self.counts = {
            "images": np.zeros(n, np.int64),
            "patch_images": np.zeros(n, np.int64),
            "tokens": np.zeros(n, np.int64),
            "patch_tokens": np.zeros(n, np.int64),
            "histogram": np.zeros(n * N_BINS, np.int64),
            "class_images": np.zeros(settings.n_classes, np.int64),
            "seen": np.zeros(settings.n_data, bool),
            "totals": np.zeros(4, np.int64),  # images, tokens, patches, unreadable images
        }
        self.peaks = np.zeros(n, np.float32)
        self.meters = {}
        if d_embedding is not None:
            for name, n_units in {"latents": n, **(beside or {})}.items():
                self.meters[name] = MonosemanticityMeter(n_units, d_embedding)

    @property
    def n_images(self) -> int:
        """Images gathered so far."""
        return int(self.counts["totals"][0])

    @property
    def n_unreadable(self) -> int:
        """Images that could not be opened so far."""
        return int(self.counts["totals"][3])

    def skip(self, numbers: Int[np.ndarray, " images"]) -> None:
        """Note images that could not be opened."""
        self._see(np.asarray(numbers, np.int64))
        self.counts["totals"][3] += len(numbers)

    def add(
        self,
        fired: Firings,
        embeddings: Any = None,
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a batch; `embeddings` (images, d_embedding) where MonoSemanticity is asked for, and the
        units `beside`, means over tokens (images, n_units) by name, where theirs is too."""
        self._see(fired.numbers)
        n = len(fired.numbers)
        self.counts["totals"][:3] += (n, n * fired.n_tokens, n * fired.n_patches)
        classes = fired.labels[fired.labels >= 0]
        self.counts["class_images"] += np.bincount(classes, minlength=self.settings.n_classes)
        self._count(fired)
        self._count_classes(fired)
        self._offer(fired)
        if "latents" in self.meters:
            shape = (n, self.settings.d_sae)
            means = sparse.csr_array((fired.mean, (fired.image, fired.latent)), shape=shape)
            self.meters["latents"].update(means, embeddings)
        for name, units in (beside or {}).items():
            self.meters[name].update(units, embeddings)

    def _see(self, numbers: np.ndarray) -> None:
        if self.counts["seen"][numbers].any():
            raise ValueError("An image was added to the index twice; each may be added once.")
        self.counts["seen"][numbers] = True

    def _count(self, fired: Firings) -> None:
        latent, n = fired.latent, self.settings.d_sae
        on_patches = fired.patches > 0
        self.counts["images"] += np.bincount(latent, minlength=n)
        self.counts["patch_images"] += np.bincount(latent[on_patches], minlength=n)
        for name in ("tokens", "patches"):
            sums = np.bincount(latent, weights=getattr(fired, name), minlength=n)
            self.counts["tokens" if name == "tokens" else "patch_tokens"] += sums.astype(np.int64)
        bins = np.searchsorted(histogram_edges(), fired.maximum, side="right") - 1
        key = latent.astype(np.int64) * N_BINS + np.clip(bins, 0, N_BINS - 1)
        self.counts["histogram"] += np.bincount(key, minlength=n * N_BINS)
        np.maximum.at(self.peaks, latent, fired.maximum)
        self.sums["mean"].add(latent, fired.mean)
        if fired.n_patches:
            self.sums["patch_mean"].add(latent, fired.patch_total / fired.n_patches)

    def _count_classes(self, fired: Firings) -> None:
        """PatchSAE, equation 5: tokens above tau, by latent and class of the image."""
        label = fired.labels[fired.image]
        rows = np.flatnonzero((label >= 0) & (fired.above > 0))
        key = fired.latent[rows].astype(np.int64) * self.settings.n_classes + label[rows]
        self.class_tokens.add(key, fired.above[rows])

    def _offer(self, fired: Firings) -> None:
        def shown(rows: np.ndarray) -> dict[str, np.ndarray]:
            patches, values = fired.strongest_patches(rows)
            return {"patches": patches, "values": values}

        def sampled(rows: np.ndarray) -> dict[str, np.ndarray]:
            return shown(rows) | {"activations": fired.maximum[rows]}

        def labelled(rows: np.ndarray) -> dict[str, np.ndarray]:
            return {"labels": fired.labels[fired.image[rows]]}

        number, tables = fired.number, self.tables
        tables["top"].offer(fired.latent, falling(fired.maximum, number), shown)
        tables["reference"].offer(fired.latent, falling(fired.mean, number), labelled)
        tables["sample"].offer(fired.latent, by_chance(number), sampled)
        tables["cofiring"].offer(
            np.zeros(len(fired.numbers), np.int64),
            by_chance(fired.numbers),
            lambda images: {"latents": _strongest_latents(fired, images, self.settings.n_cofiring)},
        )

    def merge(self, other: "Gathered") -> None:
        """Add what `other` gathered over other images with the same settings."""
        if other.settings != self.settings or other.meters.keys() != self.meters.keys():
            raise ValueError(
                f"These parts of an index do not fit together: {other.settings} and {self.settings}."
            )
        if (self.counts["seen"] & other.counts["seen"]).any():
            raise ValueError("These parts of an index share images; each image may be in one part.")
        for name in self.counts:
            self.counts[name] += other.counts[name]
        for name, table in self.tables.items():
            table.merge(other.tables[name])
        for name, total in self.sums.items():
            total.merge(other.sums[name])
        self.class_tokens.merge(other.class_tokens)
        np.maximum(self.peaks, other.peaks, out=self.peaks)
        for name, meter in self.meters.items():
            meter.merge(other.meters[name])

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as named arrays; the same bits for the same images."""
        arrays = {f"counts.{name}": array for name, array in self.counts.items()}
        parts: dict[str, Any] = {**self.tables, **self.sums, "class_tokens": self.class_tokens}
        for name, part in parts.items():
            arrays |= {f"{name}.{key}": array for key, array in part.state().items()}
        arrays["peaks"] = self.peaks
        for name, meter in self.meters.items():
            arrays |= {f"meter.{name}.{key}": row.numpy() for key, row in meter.state().items()}
        return arrays

    @classmethod
    def from_state(cls, settings: Settings, state: dict[str, np.ndarray]) -> "Gathered":
        """Go on from a state that was gathered with the same settings."""
        made = cls(settings)
        parts: dict[str, Any] = {**made.tables, **made.sums, "class_tokens": made.class_tokens}
        for name, part in parts.items():
            part.restore(_under(name, state))
        for name, array in _under("counts", state).items():
            made.counts[name] = array.copy()
        made.peaks = state["peaks"].copy()
        meters = _under("meter", state)
        for name in dict.fromkeys(key.partition(".")[0] for key in meters):
            sums = _under(name, meters)
            tensors = {key: torch.from_numpy(np.array(array)) for key, array in sums.items()}
            made.meters[name] = MonosemanticityMeter.from_state(tensors)
        return made

    def fingerprint(self) -> dict[str, object]:
        """What another part must share to be merged with this one."""
        return asdict(self.settings) | {"monosemanticity": sorted(self.meters)}


def _under(name: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)}


def _strongest_latents(fired: Firings, images: np.ndarray, n: int) -> np.ndarray:
    """The n latents of largest maximum on some images of a batch: int32 (images, n), -1 for none."""
    latents = np.full((len(images), n), -1, np.int32)
    bounds = np.searchsorted(fired.image, np.arange(len(fired.numbers) + 1))
    for row, image in enumerate(images):
        part = slice(bounds[image], bounds[image + 1])
        order = np.argsort(-fired.maximum[part], kind="stable")[:n]
        latents[row, : len(order)] = fired.latent[part][order]
    return latents
