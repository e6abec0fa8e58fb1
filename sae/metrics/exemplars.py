"""The images on which each latent is strongest, for the measures that look at those only.

Knows latents per image. Knows nothing of what the images show.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from sae.metrics.image_blocks import Array, columns_of


class Exemplars(NamedTuple):
    """Top images of every latent, strongest first; places not used hold image -1 and value 0."""

    images: Int64[np.ndarray, "n_latents k"]
    values: Float64[np.ndarray, "n_latents k"]

    @property
    def full(self) -> Bool[np.ndarray, " n_latents"]:
        """Latents active on at least k images."""
        return np.all(self.images >= 0, axis=1)


def top_images(latents: Array, k: int = 16) -> Exemplars:
    """The k images of largest activation above 0 of each latent; equal ones in order of number.

    latents `(n_images, n_latents)`, dense or sparse. Pach et al. use k = 16, PatchSAE 10.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    columns = columns_of(latents)
    latent = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
    order = np.lexsort((columns.indices, -columns.data, latent))
    rank = np.arange(len(order)) - columns.indptr[latent]
    kept = (rank < k) & (columns.data[order] > 0)
    exemplars = Exemplars(
        np.full((columns.shape[1], k), -1, np.int64), np.zeros((columns.shape[1], k))
    )
    exemplars.images[latent[kept], rank[kept]] = columns.indices[order][kept]
    exemplars.values[latent[kept], rank[kept]] = columns.data[order][kept]
    return exemplars


def checked(
    images: Int[np.ndarray, "n_latents k"], n_images: int, measure: str
) -> Int64[np.ndarray, "n_latents k"]:
    """Exemplars `(n_latents, k)` as int64; ValueError unless each is -1 or below `n_images`."""
    ids = np.asarray(images)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"{measure}: got exemplars of shape {ids.shape} and type {ids.dtype}, expected whole "
            "numbers (n_latents, k), -1 where there is none."
        )
    if ids.size and not (ids.min() >= -1 and ids.max() < n_images):
        raise ValueError(
            f"{measure}: exemplars go from {ids.min()} to {ids.max()}, but there are {n_images} "
            "images; were they found in another data set?"
        )
    return ids.astype(np.int64)
