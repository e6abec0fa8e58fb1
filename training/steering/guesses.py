"""How good the guesses are: candidates predicted and run, and the doses at which captions flip.

Knows scenes, steering and words; draws nothing. A pair is a held-out picture with one object and a
kind that it does not show; the question is what would make the model name that kind after "a".
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sae.steering import Edit, Steerer, SteerRequest
from sae.steering.candidates import Candidate, candidates
from sae.steering.doses import DoseResponse, dose_response
from sae.world.scenes import kind_names
from training.steering.protocol import PROMPT, Pair

DOSE = 2.0
LADDER = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Multiples of the maximum, on every token."""


def candidate_lines(steerer: Steerer, pairs: Sequence[Pair], n: int = 8) -> Iterator[str]:
    """One line a figure: the first `n` by gradient, verified, for each pair."""
    names = kind_names()
    found = [
        candidates(steerer, p.prepared, names[p.kind], answer_start="a", dose=DOSE, n=n)
        for p in pairs
    ]
    guessed = [max(rows, key=lambda row: row.predicted) for rows in found]
    best = [rows[0] for rows in found]
    yield f"the model would say the word (median p)       before {_p(best, 'before'):.4f}"
    yield f"with the gradient's first guess, run          {_p(guessed, 'after'):.3f}"
    yield f"with the best of {n} that were run              {_p(best, 'after'):.3f}"
    carry = np.mean([row.name == names[p.kind] for row, p in zip(best, pairs, strict=True)])
    yield f"that best concept carries the word as its name {carry:6.1%}"
    ranks = [_rank_correlation(rows) for rows in found]
    yield f"predicted against actual, rank correlation    {np.mean(ranks):.2f} within the first {n}"
    signs = np.mean([row.actual > 0 for rows in found for row in rows])
    yield f"guesses that do raise the word's logit        {signs:6.1%}"


def dose_lines(steerer: Steerer, pairs: Sequence[Pair], latents: Sequence[int]) -> Iterator[str]:
    """One line a figure: a ladder of each pair's concept on every token."""
    names = kind_names()
    found = [
        dose_response(
            steerer,
            pair.prepared,
            SteerRequest(PROMPT, (Edit(latent, "set", 1.0),), max_new_tokens=16),
            LADDER,
            word=names[pair.kind],
            refine=True,
        )
        for pair, latent in zip(pairs, latents, strict=True)
    ]
    flips = [response.flip for response in found if response.flip is not None]
    middle = f", median {np.median(flips):.2f} × max" if flips else ""
    share = len(flips) / len(found)
    yield f"captions that flip on the ladder up to {LADDER[-1]:g} ×   {share:6.1%}{middle}"
    yield f"ladders on which p(word) never falls          {np.mean([r.monotonic for r in found]):6.1%}"
    for place, dose in enumerate(LADDER):
        yield (
            f"{dose:4g} × max: p(word) {_mean(found, place, 'p_word'):.3f}  similarity to the word "
            f"{_mean(found, place, 'similarity'):.3f}  fluency {_mean(found, place, 'fluency'):.3f}"
        )


def _p(rows: Sequence[Candidate], when: str) -> float:
    return float(np.median([getattr(row, when) for row in rows]))


def _mean(found: Sequence[DoseResponse], place: int, name: str) -> float:
    return float(np.mean([getattr(response.doses[place], name) for response in found]))


def _rank_correlation(rows: Sequence[Candidate]) -> float:
    ranks = [np.argsort(np.argsort([getattr(r, n) for r in rows])) for n in ("predicted", "actual")]
    return float(np.corrcoef(*ranks)[0, 1])
