"""How many classes a latent is spread over: the entropy of its activation over labels.

Knows activations and class numbers. PatchSAE, section 3: over a latent's reference images, with p_c the share
of their summed activation that falls on class c, H = -sum_c p_c ln p_c (nats). 0 is one class.
"""

import numpy as np
from jaxtyping import Float64, Int, Num
from scipy import sparse

from sae.metrics.image_blocks import Array


def exemplar_entropy(
    labels: Int[np.ndarray, "n_latents k"],
    values: Num[np.ndarray, "n_latents k"],
    *,
    min_images: int | None = None,
) -> Float64[np.ndarray, " n_latents"]:
    """Entropy of every latent over its exemplars, float64 `(n_latents,)`.

    labels `(n_latents, k)`: class numbers, -1 where there is no exemplar or it has no label.
    values `(n_latents, k)`: activations of at least 0. NaN for latents with fewer than
    `min_images` (default: k) labelled exemplars above 0.
    """
    labels, values = np.asarray(labels), np.asarray(values, dtype=np.float64)
    if labels.shape != values.shape or labels.ndim != 2:
        raise ValueError(
            f"exemplar_entropy: got labels {labels.shape} and values {values.shape}, expected both "
            "(n_latents, k)."
        )
    needed = labels.shape[1] if min_images is None else min_images
    latent, place = np.nonzero((labels >= 0) & (values > 0))
    shape = (len(labels), int(labels.max(initial=0)) + 1)
    mass = sparse.coo_array((values[latent, place], (latent, labels[latent, place])), shape=shape)
    counts = np.bincount(latent, minlength=len(labels))
    return np.where(counts >= max(needed, 1), _row_entropy(mass), np.nan)


def class_entropy(
    latents: Array, labels: Int[np.ndarray, " n_images"]
) -> Float64[np.ndarray, " n_latents"]:
    """Entropy of every latent over all labelled images, float64 `(n_latents,)`.

    latents `(n_images, n_latents)` of at least 0, scipy sparse or dense numpy; labels `(n_images)`
    class numbers, -1 for none. NaN for latents that fire on no labelled image.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or latents.shape[0] != len(labels):
        raise ValueError(
            f"class_entropy: got latents {latents.shape} and labels {labels.shape}, expected "
            "(n_images, n_latents) and (n_images,)."
        )
    images = np.flatnonzero(labels >= 0)
    one_hot = sparse.csr_array(
        (np.ones(len(images)), (labels[images], images)),
        shape=(int(labels.max(initial=0)) + 1, len(labels)),
    )
    return _row_entropy((one_hot @ sparse.csr_array(latents)).T)


def _row_entropy(mass: sparse.sparray) -> np.ndarray:
    """Entropy of each row of non-negative mass; NaN for a row of zeros."""
    rows = mass.tocsr()
    total = rows.sum(1)
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    kept = rows.data > 0
    share = rows.data[kept] / total[row[kept]]
    entropies = -np.bincount(row[kept], weights=share * np.log(share), minlength=rows.shape[0])
    return np.where(total > 0, np.maximum(entropies, 0.0), np.nan)
