"""What a batch of images lights up: one row per (image, latent) that fires, and where it fires.

Knows sparse codes of tokens; knows nothing of data sets, files or what is done with the rows. A row
depends on its own image alone, so that any split of a data set into batches gives the same rows.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

N_PATCHES = 16
"""Firing patches kept for an exemplar."""


@dataclass(frozen=True)
class Firings:
    """Rows by image, then latent. Per row: image and latent, maximum and sums over tokens."""

    numbers: np.ndarray
    """Numbers of the images in the data set, int64 (images)."""
    labels: np.ndarray
    """Their classes, -1 for none, int32 (images)."""
    n_tokens: int
    """Tokens of one image that the SAE reads."""
    n_patches: int
    """How many of these are patches."""
    image: np.ndarray
    """Place in `numbers`, int32 (rows)."""
    latent: np.ndarray
    """int32 (rows)."""
    maximum: np.ndarray
    """Largest activation over all tokens, float32 (rows)."""
    total: np.ndarray
    """Sum over all tokens, float64 (rows)."""
    patch_total: np.ndarray
    """Sum over patches, float64 (rows)."""
    tokens: np.ndarray
    """Tokens on which the latent fires, int64 (rows)."""
    patches: np.ndarray
    """Patches on which it fires, int64 (rows)."""
    above: np.ndarray
    """Tokens on which it exceeds tau, int64 (rows)."""
    place: np.ndarray = field(repr=False)
    """Patch number of every firing patch, row by row, strongest first within a row, int32."""
    value: np.ndarray = field(repr=False)
    """Its activation, float32."""

    @cached_property
    def number(self) -> np.ndarray:
        """Number of the image in the data set, int64 (rows)."""
        return self.numbers[self.image]

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean over all tokens (PatchSAE's image-level activation), float64 (rows)."""
        return self.total / self.n_tokens

    @cached_property
    def starts(self) -> np.ndarray:
        """Where the patches of each row start in `place`, int64 (rows + 1)."""
        return np.concatenate([[0], np.cumsum(self.patches)])

    def strongest_patches(
        self, rows: np.ndarray, n: int = N_PATCHES
    ) -> tuple[np.ndarray, np.ndarray]:
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
    values: np.ndarray,
    indices: np.ndarray,
    numbers: np.ndarray,
    labels: np.ndarray,
    *,
    patches: range,
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
        n_patches=len(patches),
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
