"""What both forms of the Steer tab answer alike: suggestions for the rack, and which concepts would do it.

Knows the catalogue and candidates. Does not know: a model, Gradio.
"""

from collections.abc import Sequence
from typing import Protocol

from sae.steering.candidates import MAX_VERIFIED, Candidate
from sae.ui.catalogue import Catalogue
from sae.ui.dispatch import Json

MAX_SUGGESTED = 12
MAX_GUESSED, MAX_NAMED, MAX_SHOWN = 10, 4, 8
"""Concepts that are tried for a word: by what is foretold and by their names; and those that are shown."""
DOSES = (1.0, 2.0, 3.0)
"""Strengths at which each is tried."""
WORTH_TAKING = 0.01
"""Probability from which a word can be kept from being said."""
MAX_WORD = 60
"""Letters of a word that are read."""


class Finder(Protocol):
    """`candidates` for a picture and a word."""

    def __call__(
        self, *, dose: float = 1.0, n: int = 8, latents: list[int] | None = None
    ) -> list[Candidate]: ...


class RackDesk:
    """Answers `suggest`; shared by all visitors."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def suggest(self, fields: Json) -> Json:
        """The concepts of `latents`, or those whose name fits `text`."""
        latents = fields.get("latents")
        if isinstance(latents, list):
            chosen = [n for n in latents[:32] if self.catalogue.known(n)]
        else:
            chosen = self.catalogue.matching(
                str(fields.get("text") or "")[:MAX_WORD], MAX_SUGGESTED
            )
        return {"found": [self.about(latent) for latent in chosen]}

    def about(self, latent: int) -> Json:
        """A concept as the rack shows it."""
        return {
            "latent": latent,
            "name": self.catalogue.label(latent),
            "maximum": self.catalogue.maximum(latent),
            "icon": self.catalogue.icons([latent]).get(str(latent), ""),
        }

    def found(self, find: Finder, fields: Json, doses: Sequence[float] = DOSES) -> Json:
        """The edits that truly move a word most, as the page lists them."""
        word, less = str(fields.get("word") or "")[:MAX_WORD], fields.get("less") is True
        best = best_edits(find, self.catalogue.matching(word, MAX_NAMED), less, doses)
        rows = [{**c.to_json(), **self.about(c.edit.latent), "does": does(c, less)} for c in best]
        return {"word": word, "found": rows}


def best_edits(
    find: Finder, named: list[int], less: bool, doses: Sequence[float] = DOSES
) -> list[Candidate]:
    """Of the concepts that `find` gives and of those in `named`, each at the smallest of `doses` that does
    it, or else its best; those that move the word the other way are left out."""
    usual = min(1.0, doses[-1])
    guessed = find(dose=usual, n=MAX_GUESSED)
    tried = list({c.edit.latent: None for c in guessed} | dict.fromkeys(named))
    best: dict[int, Candidate] = {}
    for dose in doses:
        for candidate in find(dose=dose, n=MAX_VERIFIED, latents=tried):
            latent = candidate.edit.latent
            if latent not in best or (
                not does(best[latent], less) and better(candidate, best[latent], less)
            ):
                best[latent] = candidate
    moved = [c for c in best.values() if (c.after < c.before if less else c.after > c.before)]
    moved.sort(key=lambda c: c.after if less else -c.after)
    return moved[:MAX_SHOWN]


def does(candidate: Candidate, less: bool) -> bool:
    """Whether an edit makes a word the likely one, or takes half of a probability worth taking."""
    if less:
        return candidate.before >= WORTH_TAKING and candidate.after <= candidate.before / 2
    return candidate.after >= 0.5


def better(one: Candidate, other: Candidate, less: bool) -> bool:
    """Whether an edit moves a word further than another does."""
    return one.after < other.after if less else one.after > other.after
