"""Names of latents from a classifier's opinion alone, and how well each name tells where its latent fires.

A latent's name is a class, or a wider word for several, that two things agree on: the decoder row pushes
these classes up (decoder · classifier), and the classifier sees them in the lit regions of the exemplars.
Labels of photos are not looked at. A name predicts: on a photo where the classifier sees the word, the
latent should fire, and elsewhere not. Its confidence is twice the balanced accuracy of that, less 1 (0 is
chance), on photos that the name is not from. Knows arrays; knows no models and no files.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

CLASSIFIER, PLACE = "classifier", "place in the picture"
"""Where names come from."""
BORDER = "edge of the picture"
CLASS_SHARE, WORD_SHARE = 0.5, 0.6
"""Probability that a class, or a wider word, must have in the lit regions."""
PUSH = 1.0
"""Standard deviations, over all classes, by which the decoder row must push the named ones up."""
MIN_EXEMPLARS = 3
ON_BORDER = 0.95
"""Share of a latent's activation on the outermost positions from which on it is called a border."""
FIRES = 0.25
"""Share of its largest activation from which on a latent counts as firing on a photo."""
THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
"""Probabilities of a word from which on a photo counts as showing it; the best one is a name's own."""
MIN_PHOTOS = 5
"""Photos on which a latent must fire, and must not, for a balanced accuracy."""
LEAST = 0.2
"""A name of less confidence is none: barely better than chance."""


class Named(NamedTuple):
    """Names, one a latent, "" for none."""

    words: list[str]
    sources: list[str]
    pushes: Float32[np.ndarray, " d_sae"]
    """How far the decoder row pushes the named classes up, in standard deviations over all classes."""
    shares: Float32[np.ndarray, " d_sae"]
    """Probability of the name in the lit regions; of BORDER, the share of activation there."""


def name_latents(
    effects: Float[np.ndarray, "d_sae classes"],
    regions: Float[np.ndarray, "d_sae classes"],
    n_regions: Float[np.ndarray, " d_sae"],
    border: Float[np.ndarray, " d_sae"],
    silent: Bool[np.ndarray, " d_sae"],
    classes: Sequence[str],
    wider: Mapping[str, Sequence[int]],
) -> Named:
    """Name every latent that is not `silent` (dead, or always on).

    `effects` are decoder rows times class weights, `regions` mean probabilities in lit regions. A class goes
    before a wider word, and of wider words the one for fewest classes.
    """
    pushes = standardised(effects)
    by_width = sorted(wider, key=lambda word: len(wider[word]))
    words, sources = [""] * len(effects), [""] * len(effects)
    push, share = (np.zeros(len(effects), np.float32) for _ in range(2))
    for latent in np.flatnonzero(~silent):
        if border[latent] >= ON_BORDER:
            words[latent], sources[latent], share[latent] = BORDER, PLACE, border[latent]
            continue
        if n_regions[latent] < MIN_EXEMPLARS:
            continue
        best = int(regions[latent].argmax())
        candidates = [(classes[best], [best], CLASS_SHARE)]
        candidates += [(word, list(wider[word]), WORD_SHARE) for word in by_width]
        for word, members, least in candidates:
            seen = float(regions[latent, members].sum())
            up = float(np.average(pushes[latent, members], weights=regions[latent, members] + 1e-9))
            if seen >= least and up >= PUSH:
                words[latent], sources[latent] = word, CLASSIFIER
                push[latent], share[latent] = up, seen
                break
    return Named(words, sources, push, share)


def standardised(effects: Float[np.ndarray, "d_sae classes"]) -> Float[np.ndarray, "d_sae classes"]:
    """Rows less their mean, over their standard deviation; rows without any stay 0."""
    away = effects - effects.mean(1, keepdims=True)
    return away / np.maximum(away.std(1, keepdims=True), 1e-12)


def word_probabilities(
    said: Float[np.ndarray, "n classes"], classes: Sequence[str], wider: Mapping[str, Sequence[int]]
) -> dict[str, Float[np.ndarray, " n"]]:
    """The probability of every class and wider word on every photo (n); a class goes before a wider word."""
    of_wider = {word: said[:, list(members)].sum(1) for word, members in wider.items()}
    return of_wider | {name: said[:, number] for number, name in enumerate(classes)}


def fires_on(
    firing: Float[np.ndarray, "n d_sae"], maximum: Float[np.ndarray, " d_sae"]
) -> Bool[np.ndarray, "n d_sae"]:
    """Whether a latent fires on a photo with at least FIRES of its largest activation."""
    return firing >= np.maximum(FIRES * maximum, 1e-12)


def balanced_accuracy(predicted: Bool[np.ndarray, " n"], true: Bool[np.ndarray, " n"]) -> float:
    """Mean of the accuracies on photos where it is true and where it is not; NaN with too few of either."""
    n_true = int(true.sum())
    if n_true < MIN_PHOTOS or len(true) - n_true < MIN_PHOTOS:
        return float("nan")
    return float((predicted[true].mean() + (~predicted[~true]).mean()) / 2)


class Judged(NamedTuple):
    """How well each name predicts, one a latent, NaN for none or too few photos."""

    thresholds: Float[np.ndarray, " d_sae"]
    """Probability of the word from which on the latent should fire."""
    accuracy: Float[np.ndarray, " d_sae"]
    """Balanced accuracy at that threshold."""


def judge(
    words: Sequence[str],
    probabilities: Mapping[str, Float[np.ndarray, " n"]],
    fires: Bool[np.ndarray, "n d_sae"],
    left_out: Int[np.ndarray, "d_sae m"] | None = None,
    thresholds: Float[np.ndarray, " d_sae"] | None = None,
) -> Judged:
    """Balanced accuracy of the names that are words of the classifier's.

    `left_out` are photos by latent that do not count (those that the name is from; -1 for none).
    `thresholds` are given where they were chosen on other photos; else each name gets the best of THRESHOLDS.
    """
    n = len(fires)
    chosen, accuracy = np.full(len(words), np.nan), np.full(len(words), np.nan)
    for latent, word in enumerate(words):
        if word not in probabilities:
            continue
        counts = np.ones(n, bool)
        if left_out is not None:
            counts[left_out[latent][left_out[latent] >= 0]] = False
        said, true = probabilities[word][counts], fires[counts, latent]
        tried = THRESHOLDS if thresholds is None else (thresholds[latent],)
        scores = [balanced_accuracy(said >= least, true) for least in tried]
        if not np.isnan(scores[0]):
            best = int(np.argmax(scores))
            chosen[latent], accuracy[latent] = tried[best], scores[best]
    return Judged(chosen, accuracy)


def shuffled(words: Sequence[str], probabilities: Mapping[str, object], seed: int = 0) -> list[str]:
    """The same names dealt out to the same latents anew; no latent keeps its own word if another is left."""
    named = [latent for latent, word in enumerate(words) if word in probabilities]
    dealt = list(words)
    order = np.random.default_rng(seed).permutation(len(named))
    for place, latent in enumerate(np.asarray(named)[order]):
        others = np.asarray(named)[order]
        for step in range(1, len(others)):
            other = words[others[(place + step) % len(others)]]
            if other != words[latent]:
                dealt[latent] = other
                break
    return dealt


def confidences(
    named: Named, accuracy: Float[np.ndarray, " d_sae"], rim_share: float
) -> Float32[np.ndarray, " d_sae"]:
    """Twice the balanced accuracy less 1; of borders, how far their share is above that of the rim's area
    (`rim_share`), which is 1 at most. 0 for names that nothing could be said of."""
    sure = np.nan_to_num(2 * accuracy - 1, nan=0.0).clip(0, 1)
    border = np.asarray([source == PLACE for source in named.sources])
    return np.where(border, (named.shares - rim_share) / (1 - rim_share), sure).astype(np.float32)
