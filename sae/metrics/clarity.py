"""How alike a latent's exemplars look: the mean cosine over all pairs of their embeddings.

Knows exemplar numbers and one embedding per image. Dreyer et al. (2025):
clarity = (|mean u|² - 1/n) n / (n - 1) with unit embeddings u, which is MonoSemanticity with all weights 1.
"""

import numpy as np
from jaxtyping import Float64, Int, Num

from sae.metrics.exemplars import checked

LATENTS_AT_ONCE = 1024


def clarity(
    exemplars: Int[np.ndarray, "n_latents k"],
    embeddings: Num[np.ndarray, "n_images d"],
    *,
    min_images: int = 2,
) -> Float64[np.ndarray, " n_latents"]:
    """Clarity of every latent, float64 `(n_latents,)` in -1 … 1.

    exemplars `(n_latents, k)`: image numbers, -1 where there is none. embeddings `(n_images, d)` of
    any length but 0. NaN for latents with fewer than `min_images` exemplars.
    """
    if min_images < 2:
        raise ValueError(f"clarity compares pairs; min_images must be at least 2: {min_images}.")
    units = np.asarray(embeddings, dtype=np.float64)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("clarity: some embeddings are zero or not finite; leave those images out.")
    units = np.concatenate([units / lengths, np.zeros((1, units.shape[1]))])  # -1: no image
    ids = checked(exemplars, len(embeddings), "clarity")
    together = np.empty(len(ids))
    for start in range(0, len(ids), LATENTS_AT_ONCE):
        part = slice(start, start + LATENTS_AT_ONCE)
        together[part] = np.square(units[ids[part]].sum(1)).sum(1)
    n = (ids >= 0).sum(1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (together - n) / (n * (n - 1))
    return np.where(n >= min_images, cosines.clip(-1, 1), np.nan)
