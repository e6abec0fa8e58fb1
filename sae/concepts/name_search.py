"""Names by what one types: whole, beginning, inside, or spelt alike; any script, any case.

Knows strings; knows nothing of concepts but that a name may belong to many of them.
"""

import unicodedata
from collections.abc import Sequence
from functools import cached_property

import numpy as np

_ALIKE = 0.1
"""Share of letter triples in common from which a name counts as spelt alike."""


class NameSearch:
    """Looks at each different name once; entries of one name come in falling order of `weights`."""

    LITERAL = 0.7
    """Score from which a name holds the text itself."""

    def __init__(self, names: Sequence[str], weights: np.ndarray) -> None:
        owners: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            if name:
                owners.setdefault(normal(name), []).append(number)
        self._names = list(owners)
        self._owners = [
            sorted(rows, key=lambda row: (-weights[row], row)) for rows in owners.values()
        ]

    def find(self, text: str, k: int) -> list[tuple[int, float]]:
        """(entry, score) of at most k entries, best first: 1 the name itself, 0.9 its beginning, 0.8
        the beginning of one of its words, 0.7 inside, below that names spelt alike."""
        wanted = normal(text)
        scored = [
            (score, number)
            for number, name in enumerate(self._names)
            if (score := _literal(wanted, name))
        ]
        if not scored:
            scored = self._alike(wanted)
        scored.sort(key=lambda pair: (-pair[0], len(self._names[pair[1]]), self._names[pair[1]]))
        found: list[tuple[int, float]] = []
        for score, number in scored:
            found += [(row, score) for row in self._owners[number][: k - len(found)]]
            if len(found) >= k:
                break
        return found

    def _alike(self, wanted: str) -> list[tuple[float, int]]:
        """Dice's coefficient of letter triples, below LITERAL."""
        triples = _triples(wanted)
        rows = [self._by_triple[triple] for triple in triples if triple in self._by_triple]
        if not rows:
            return []
        shared = np.bincount(np.concatenate(rows), minlength=len(self._names))
        dice = 2 * shared / (len(triples) + self._n_triples)
        near = np.flatnonzero(dice >= _ALIKE)
        return [(float(self.LITERAL * dice[number] * 0.99), int(number)) for number in near]

    @cached_property
    def _n_triples(self) -> np.ndarray:
        return np.array([len(_triples(name)) for name in self._names])

    @cached_property
    def _by_triple(self) -> dict[str, np.ndarray]:
        found: dict[str, list[int]] = {}
        for number, name in enumerate(self._names):
            for triple in _triples(name):
                found.setdefault(triple, []).append(number)
        return {triple: np.array(rows) for triple, rows in found.items()}


def normal(text: str) -> str:
    """A text as names are compared: composed, case folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _literal(wanted: str, name: str) -> float:
    place = name.find(wanted)
    if place < 0:
        return 0.0
    if place == 0:
        return 1.0 if len(name) == len(wanted) else 0.9
    return 0.8 if f" {wanted}" in name else 0.7


def _triples(name: str) -> set[str]:
    """Letter triples of every word, its ends marked."""
    words = [f"^{word}$" for word in name.split()]
    return {word[at : at + 3] for word in words for at in range(max(1, len(word) - 2))}
