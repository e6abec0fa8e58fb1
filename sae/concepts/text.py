"""Words as directions in the space of a text tower. Knows backbones and prompts; knows no index."""

from collections.abc import Mapping, Sequence

import numpy as np

from sae.backbones import Backbone

TEMPLATES = ("{}", "a photo of {}", "a picture of {}")
_NONSENSE = "qzxvj"
_SAME = 0.9999
_BATCH = 256


def phrases_of(word: str) -> list[str]:
    """The phrases that stand for a word of any kind."""
    return [template.format(word) for template in TEMPLATES]


EMPTY = tuple(template.format("").strip() or "a" for template in TEMPLATES)
"""What the templates say when they say nothing."""


def word_vectors(backbone: Backbone, words: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Unit vectors float32 (words, d): the mean over each word's phrases, many at a time."""
    phrases = [phrase for group in words.values() for phrase in group]
    found = [
        backbone.text_features(phrases[start : start + _BATCH]).double().cpu().numpy()
        for start in range(0, len(phrases), _BATCH)
    ]
    rows, start = [], 0
    features = np.concatenate(found)
    for group in words.values():
        rows.append(features[start : start + len(group)].mean(0))
        start += len(group)
    vectors = np.stack(rows)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def directions(backbone: Backbone, words: Mapping[str, Sequence[str]]) -> np.ndarray | None:
    """Each word's vector less that of the empty prompt, float32 (words, d).

    Its product with a unit image vector is a difference of cosines. None if the tower tells none of
    the words from a meaningless one: it does not know them.
    """
    asked = {**words, "": EMPTY, _NONSENSE: phrases_of(_NONSENSE)}
    vectors = word_vectors(backbone, asked)
    found, empty, nonsense = vectors[:-2], vectors[-2], vectors[-1]
    if (found @ nonsense > _SAME).all():
        return None
    return found - empty
