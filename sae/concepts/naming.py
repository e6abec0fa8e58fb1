"""Names latents with a text tower: which word do the exemplars of a latent share?

Knows image and text features; knows no pictures or files. A word's score for a latent is how many
standard deviations the exemplars' similarity to the word lies above that of all exemplar images,
averaged with the activations as weights: common words gain nothing from being common.
"""

from collections.abc import Sequence

import numpy as np

from sae.concepts.index import ConceptIndex

SOURCE = "text tower"


def name_latents(
    index: ConceptIndex,
    words: Sequence[str],
    text_features: np.ndarray,
    image_ids: np.ndarray,
    image_features: np.ndarray,
    *,
    minimum: float = 0.0,
) -> ConceptIndex:
    """A copy of `index` with the best word for every latent that fires.

    words (n); text_features (n, d) unit rows; image_ids (m) rising and image_features (m, d) unit
    rows of every top exemplar's image. Latents whose best score is below `minimum` standard
    deviations stay nameless.
    """
    similarity = image_features @ text_features.T
    above = (similarity - similarity.mean(0)) / (similarity.std(0) + 1e-6)
    ids, activations = index.exemplar_table("top")
    rows = np.searchsorted(image_ids, np.maximum(ids, image_ids[0]))
    weights = np.where(ids >= 0, activations, 0)
    totals = np.einsum("le,lew->lw", weights, above[rows], optimize=True)
    scores = totals / np.maximum(weights.sum(1), 1e-12)[:, None]
    best = scores.argmax(1)
    score = scores[np.arange(len(index)), best]
    named = (weights.sum(1) > 0) & (score >= minimum)
    return index.with_names(
        [words[word] if ok else "" for word, ok in zip(best, named, strict=True)],
        [SOURCE if ok else "" for ok in named],
        [round(float(s), 3) if ok else 0.0 for s, ok in zip(score, named, strict=True)],
    )
