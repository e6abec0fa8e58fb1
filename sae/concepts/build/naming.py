"""Names concepts: by the words that a text tower finds in the lit regions, or by class labels.

Knows an index's embeddings, labels and vocabularies; knows no pictures or files. By text, a word's score for
a latent is the cosine of the word and the mean feature of the exemplars' lit regions, minus that of the
empty prompt (a word must say more than saying nothing). The confidence is the word's share in a softmax,
at the tower's own temperature, over the whole vocabulary and the empty prompt.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from sae.backbones import Backbone
from sae.backbones.text import NO_WORD, averaged_text_features, phrases_of
from sae.concepts.index import ConceptIndex
from sae.hub import BUNDLED
from sae.storage import read_lines

TEXT, LABELS = "text tower", "labels"
MINIMUM = 0.05
"""Difference of cosines that the best word must reach; weaker latents stay nameless."""
SURE = 0.5
"""Confidence that it must reach too: more than all other words together."""
MIN_SHARE = 0.5
"""Share of the exemplars' activation that one label must reach to be the name."""
MIN_EXEMPLARS = 3
"""Exemplars that must carry that label."""
MAX_WORDS = 100_000
_SCALE = 100.0
_CHUNK = 1 << 24
WORDS = BUNDLED / "words.txt"


class Naming(NamedTuple):
    """The best words of every latent."""

    words: list[list[str]]
    """(d_sae, k), best first; [] for latents without an embedding."""
    scores: Float32[np.ndarray, "d_sae k"]
    """float32 (d_sae, k)."""
    confidences: Float32[np.ndarray, "d_sae k"]
    """float32 (d_sae, k)."""


def read_words(path: str | Path = WORDS) -> list[str]:
    """The words of a file, one a line, in its order; lines that are empty or begin with # are not
    words. ValueError if it holds none, or too many."""
    lines = read_lines(Path(path))
    words = list(dict.fromkeys(word for word in lines if word and not word.startswith("#")))
    if not 0 < len(words) <= MAX_WORDS:
        raise ValueError(f"{path}: {len(words)} words; expected 1 to {MAX_WORDS}, one a line.")
    return words


def best_words(
    index: ConceptIndex,
    backbone: Backbone,
    words: Mapping[str, Sequence[str]],
    *,
    k: int = 1,
) -> Naming:
    """The k best of `words` (name → the phrases that stand for it) for every latent."""
    phrases = [*words.values(), NO_WORD]
    vectors = averaged_text_features(backbone.text_features, phrases).cpu().numpy()
    names, features = list(words), index.embeddings.astype(np.float32)
    if features.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"The index holds features of width {features.shape[1]}, the backbone {backbone.id!r} "
            f"gives {vectors.shape[1]}; name an index with the backbone it was built with."
        )
    k = min(k, len(names))
    scale = backbone.logit_scale or _SCALE
    there = np.abs(features).sum(1) > 0
    best = np.zeros((len(index), k), np.int64)
    scores, sure = np.zeros((len(index), k), np.float32), np.zeros((len(index), k), np.float32)
    step = max(1, _CHUNK // len(vectors))
    for start in range(0, len(index), step):
        part = slice(start, start + step)
        cosines = features[part] @ vectors.T
        order = np.argpartition(-cosines[:, :-1], k - 1, axis=1)[:, :k]
        top = np.take_along_axis(cosines, order, 1)
        by_score = np.argsort(-top, axis=1, kind="stable")
        best[part] = np.take_along_axis(order, by_score, 1)
        top = np.take_along_axis(top, by_score, 1)
        scores[part] = top - cosines[:, -1:]
        largest = cosines.max(1, keepdims=True)
        total = np.exp(scale * (cosines - largest)).sum(1, keepdims=True)
        sure[part] = np.exp(scale * (top - largest)) / total
    rows = [
        [names[word] for word in row] if ok else [] for row, ok in zip(best, there, strict=True)
    ]
    return Naming(rows, scores * there[:, None], sure * there[:, None])


def name_by_text(
    index: ConceptIndex,
    backbone: Backbone,
    words: Mapping[str, Sequence[str]] | Sequence[str],
    *,
    minimum: float = MINIMUM,
    sure: float = SURE,
) -> ConceptIndex:
    """A copy of `index` named by the backbone's text tower; `words` with their phrases, or alone.

    Latents whose best word has a score below `minimum` or a confidence below `sure` stay nameless,
    and dead ones do.
    """
    if not isinstance(words, Mapping):
        words = {word: phrases_of(word) for word in words}
    naming = best_words(index, backbone, words)
    named = [
        bool(row) and not dead and bool(score[0] >= minimum and confidence[0] >= sure)
        for row, dead, score, confidence in zip(
            naming.words, index.dead, naming.scores, naming.confidences, strict=True
        )
    ]
    return index.with_names(
        [row[0] if ok else "" for row, ok in zip(naming.words, named, strict=True)],
        [TEXT if ok else "" for ok in named],
        [round(float(s[0]), 4) if ok else 0.0 for s, ok in zip(naming.scores, named, strict=True)],
        [
            round(float(c[0]), 4) if ok else 0.0
            for c, ok in zip(naming.confidences, named, strict=True)
        ],
    )


def name_by_labels(index: ConceptIndex) -> ConceptIndex:
    """A copy of `index` named by the class that most of a latent's strongest images belong to.

    The confidence is that class's share of the exemplars' activation; the score is how much that is
    above its share of the data set. A latent is named if the share is at least MIN_SHARE, on
    MIN_EXEMPLARS images or more.
    """
    names, scores, sure = [""] * len(index), [0.0] * len(index), [0.0] * len(index)
    if not index.class_names:
        return index
    ids, activations = index.exemplar_table("top")
    labels = index.class_table.of_images(ids)
    base = index.class_table.shares()
    for latent in range(len(index)):
        known = labels[latent] >= 0
        if known.sum() < MIN_EXEMPLARS:
            continue
        shares = np.bincount(labels[latent][known], weights=activations[latent][known])
        shares = shares / max(activations[latent][ids[latent] >= 0].sum(dtype=np.float64), 1e-12)
        best = int(shares.argmax())
        enough = (labels[latent] == best).sum() >= MIN_EXEMPLARS
        if enough and shares[best] >= MIN_SHARE and shares[best] > base[best] + 1e-6:
            names[latent] = index.class_names[best]
            sure[latent] = round(float(shares[best]), 4)
            scores[latent] = round(float(shares[best] - base[best]), 4)
    return index.with_names(names, [LABELS if name else "" for name in names], scores, sure)
