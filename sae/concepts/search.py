"""Finds concepts: by name, by meaning, by picture, by region, by latent, by statistic.

Knows an index's arrays and, for meaning, the text tower of the backbone that the index names; knows
nothing of files or screens. Everything but the towers' own forward is a few milliseconds at 49,152
latents: one matrix times vector, or one look at each different name.
"""

import threading
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Int32, Integer, Num
from PIL import Image

from sae.backbones import Backbone
from sae.backbones.text import phrases_of, word_directions
from sae.backbones.tokens import TokenView
from sae.concepts.concept import Hit, Neighbour, latent_number
from sae.concepts.regions import region_features, sparse_codes
from sae.concepts.statistics import Indexed, values_of
from sae.lazy import lazy

if TYPE_CHECKING:
    from sae.model import SparseAutoencoder

MAX_TEXT = 400
"""Characters of a query at most."""
_ALIKE = 0.3
"""Share of letter triples in common from which a name counts as spelt alike."""
_loading = threading.Lock()


class Searchable(Indexed, Protocol):
    """What of an index is searched."""

    max_activation: Float32[np.ndarray, " d_sae"]
    dead: Bool[np.ndarray, " d_sae"]
    dense: Bool[np.ndarray, " d_sae"]

    @property
    def text_tower(self) -> dict[str, str | None] | None: ...

    @property
    def embeddings(self) -> Float16[np.ndarray, "d_sae d"]: ...

    def __len__(self) -> int: ...

    def neighbours(self, latent: int, k: int, *, by: str) -> list[Neighbour]: ...


class NameSearch:
    """The one order in which a text finds names; the page's script has the same for every keystroke.

    Texts are compared `folded`, by whole words and their beginnings. An entry scores 1 if its number
    ("12" or "#12") or its name is the text, 0.9 if its name begins with the text as whole words, 0.8
    if it holds it so, 0.75 if its name begins with it, 0.7 if one of its words does. Entries of one
    score come by the length of their names, then by name, then by falling `weights`, then by number:
    `order`. If none has a score, names that are spelt alike come, below 0.7.
    """

    LITERAL = 0.7
    """Score from which a name holds the text itself."""

    def __init__(self, names: Sequence[str], weights: Num[np.ndarray, " n"]) -> None:
        owners: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            if name:
                owners.setdefault(folded(name), []).append(number)
        self._n = len(names)
        self._names = sorted(owners, key=lambda name: (len(name), name))
        self._owners = [
            sorted(owners[name], key=lambda row: (-weights[row], row)) for name in self._names
        ]

    @property
    def order(self) -> Int32[np.ndarray, " n"]:
        """Place of every entry among entries of its score, int32 (n); n for nameless ones."""
        entries = [row for rows in self._owners for row in rows]
        order = np.full(self._n, self._n, np.int32)
        order[entries] = np.arange(len(entries))
        return order

    def find(self, text: str, k: int) -> list[tuple[int, float]]:
        """(entry, score) of at most k entries, best first."""
        wanted = folded(text)
        number = wanted.removeprefix("#")
        own = int(number) if number.isascii() and number.isdecimal() else self._n
        hits = [(own, 1.0)] if own < self._n else []
        scores = ((_literal(wanted, name), at) for at, name in enumerate(self._names))
        scored = [(score, at) for score, at in scores if score]
        if not scored and not hits:
            scored = self._alike(wanted)
        scored.sort(key=lambda pair: (-pair[0], pair[1]))
        for score, at in scored:
            hits += [(row, score) for row in self._owners[at][: k - len(hits)] if row != own]
            if len(hits) >= k:
                break
        return hits

    def _alike(self, wanted: str) -> list[tuple[float, int]]:
        """Dice's coefficient of letter triples, below LITERAL, of names in which a word begins with
        the same two letters: what is alike only within ("round", "background") is another word."""
        triples = _triples(wanted)
        begins = [self._by_triple[t] for t in triples if t[0] == "^" and t in self._by_triple]
        if not begins:
            return []
        rows = [self._by_triple[triple] for triple in triples if triple in self._by_triple]
        if not rows:
            return []
        shared = np.bincount(np.concatenate(rows), minlength=len(self._names))
        dice = 2 * shared / (len(triples) + self._n_triples)
        near = np.unique(np.concatenate(begins))
        near = near[dice[near] >= _ALIKE]
        return [(float(self.LITERAL * dice[number] * 0.99), int(number)) for number in near]

    @lazy
    def _n_triples(self) -> np.ndarray:
        return np.array([len(_triples(name)) for name in self._names])

    @lazy
    def _by_triple(self) -> dict[str, np.ndarray]:
        numbers: dict[str, list[int]] = {}
        for number, name in enumerate(self._names):
            for triple in _triples(name):
                numbers.setdefault(triple, []).append(number)
        return {triple: np.array(rows) for triple, rows in numbers.items()}


def folded(text: str) -> str:
    """A text as names are compared: composed, in small letters, single spaces; as the page's script
    (static/latents_data.js) can do it too."""
    lower = unicodedata.normalize("NFKC", text).lower().replace("ß", "ss").replace("ς", "σ")
    return " ".join(lower.split())


def _literal(wanted: str, name: str) -> float:
    """How well `wanted` fits `name`, 0 if none of its words begins with it."""
    best, place = 0.0, name.find(wanted)
    while place >= 0:
        end = place + len(wanted)
        whole = not in_word(name[end : end + 1]) or not in_word(wanted[-1:])
        if place == 0:
            best = max(best, 1.0 if end == len(name) else 0.9 if whole else 0.75)
        elif not in_word(name[place - 1]) or not in_word(wanted[0]):
            best = max(best, 0.8 if whole else 0.7)
        place = name.find(wanted, place + 1)
    return best


def words_of(text: str) -> list[str]:
    """The words of a text, without the signs between and around them."""
    return "".join(letter if in_word(letter) else " " for letter in text).split()


def in_word(letter: str) -> bool:
    """Whether a character is a letter, a digit or a mark on one; False for none."""
    return bool(letter) and unicodedata.category(letter)[0] in "LNM"


def _triples(name: str) -> set[str]:
    """Letter triples of every word, its ends marked."""
    words = [f"^{word}$" for word in name.split()]
    return {word[at : at + 3] for word in words for at in range(max(1, len(word) - 2))}


class Embedded:
    """Embeddings (n, d), unit rows or zero rows for none. What is missing scores -inf.

    Cosines less the mean of all latents are had from the embeddings as they are: no centred copy.
    """

    def __init__(self, rows: Float[np.ndarray, "n d"]) -> None:
        self.rows = rows.astype(np.float32)

    def prepare(self) -> None:
        """Find out, once, what every search needs: which rows there are and where they lie."""
        self._there, self._centre, self._lengths  # noqa: B018

    def along(self, direction: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
        """Products with a direction (d), float32 (n)."""
        return np.where(self._there, self.rows @ direction, -np.inf)

    def centred_cosines(self, feature: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
        """Cosines with a feature (d), both less the mean of all latents, (n)."""
        centred = feature - self._centre
        length = max(float(np.linalg.norm(centred)), 1e-12)
        along = self.rows @ centred - self._centre @ centred
        return np.where(self._there, along / (self._lengths * length), -np.inf)

    @lazy
    def _there(self) -> np.ndarray:
        return np.any(self.rows, axis=1)

    @lazy
    def _centre(self) -> np.ndarray:
        return self.rows[self._there].mean(0) if self._there.any() else self.rows.sum(0)

    @lazy
    def _lengths(self) -> np.ndarray:
        """Distance of every row from the mean of all."""
        squares = np.einsum("nd,nd->n", self.rows, self.rows)
        squares += self._centre @ self._centre - 2 * (self.rows @ self._centre)
        return np.sqrt(np.maximum(squares, 1e-12))


class Searcher:
    """Every way to search one index. Safe to share between threads; nothing is changed by a search."""

    def __init__(self, index: Searchable) -> None:
        self._index = index
        self.names = NameSearch(index.names, index.name_confidences)

    def prepare(self) -> None:
        """Read the embeddings now rather than with the first search by meaning or picture."""
        if self.has_text:
            self._embedded.prepare()

    def search(
        self, query: "str | Image.Image", k: int = 5, *, backbone: Backbone | None = None
    ) -> list[Hit]:
        """The k best concepts for a text or a picture, best first; `by` says why each is there.

        Text: concepts whose name is or begins with it (score 0.7 … 1), then those near its meaning
        (score: cosine of text and lit regions, minus that of the empty prompt), if the index has a
        text tower that knows the words; without one, names that are spelt alike (score below 0.7).
        A picture: `like_image`. The text tower is `backbone`, or is loaded once from the index's
        reference. May be empty. ValueError for an empty query; OSError if the tower cannot be read.
        """
        if isinstance(query, Image.Image):
            return self.like_image(query, k, backbone=backbone)
        text, k = _checked(query, k)
        hits = {hit.latent: hit for hit in self.by_name(text, k)}
        if sum(hit.score >= NameSearch.LITERAL for hit in hits.values()) < k and self.has_text:
            for hit in self.by_meaning(text, k, backbone=backbone):
                if hit.latent not in hits or hits[hit.latent].score < hit.score:
                    hits[hit.latent] = hit
        return sorted(hits.values(), key=lambda hit: (-hit.score, hit.latent))[:k]

    def by_name(self, text: str, k: int = 5) -> list[Hit]:
        """Concepts by their name or number alone, from the first character on; no model is asked."""
        text, k = _checked(text, k)
        return [self._hit(latent, score, "name") for latent, score in self.names.find(text, k)]

    @property
    def has_text(self) -> bool:
        """Whether the index can be searched by meaning."""
        return self._index.text_tower is not None and self._index.embeddings.shape[1] > 0

    def by_meaning(self, text: str, k: int = 5, *, backbone: Backbone | None = None) -> list[Hit]:
        """Concepts whose exemplars' lit regions are nearest to the text, minus the empty prompt.

        Only the words count, no other signs. [] if the text tower knows none of them. ValueError if
        the index has no text tower.
        """
        text, k = _checked(text, k)
        if not self.has_text:
            raise ValueError(
                "This index cannot be searched by meaning: it was built with a backbone that has no "
                "text tower. Search by name, or build it with a CLIP or SigLIP backbone."
            )
        words = " ".join(words_of(text))
        direction = word_directions(self._tower(backbone), {words: phrases_of(words)})
        if not words or direction is None:
            return []
        return self._best(self._embedded.along(self._fits(direction[0])), k, "meaning")

    def unknown_words(self, text: str, *, backbone: Backbone | None = None) -> list[str]:
        """Words of a text that the text tower does not know; all of them if the index has no tower."""
        words = list(dict.fromkeys(words_of(text)))
        if not self.has_text:
            return words
        tower = self._tower(backbone)
        return [word for word in words if word_directions(tower, {word: phrases_of(word)}) is None]

    def _tower(self, backbone: Backbone | None) -> Backbone:
        with _loading:  # one tower, not one for each of many first visitors
            return backbone or _tower(**self._text_tower)

    def like_image(
        self,
        image: Image.Image,
        k: int = 5,
        *,
        patches: Sequence[int] | None = None,
        backbone: Backbone | None = None,
    ) -> list[Hit]:
        """Concepts whose exemplars look like a picture, or like a region (row-major patches) of it.

        Score: cosine of the features, both less the mean of all concepts.
        """
        _, k = _checked("image", k)
        if not self.has_text:
            raise ValueError(
                "This index holds no image features, because its backbone has no text tower; search "
                "by what fires instead: searcher.firing(...)."
            )
        feature = self._fits(region_features(self._tower(backbone), image, [patches])[0])
        by = "image" if patches is None else "region"
        return self._best(self._embedded.centred_cosines(feature), k, by)

    def firing(
        self,
        values: Num[np.ndarray, "patches n"],
        latents: Integer[np.ndarray, "patches n"],
        k: int = 5,
        *,
        patches: Sequence[int] | None = None,
    ) -> list[Hit]:
        """Concepts that fire most in a picture's sparse code, or in a region of it.

        values, latents (patches, n), row-major patches as `SparseAutoencoder.encode_sparse` gives
        them. Score: mean over the region of activation / largest activation of the data set, so
        that loud latents gain nothing; always-on latents are left out.
        """
        _, k = _checked("image", k)
        values, latents = np.asarray(values, np.float64), np.asarray(latents)
        if patches is not None:
            rows = np.unique(np.asarray(patches, np.int64))
            if not len(rows) or rows.min() < 0 or rows.max() >= len(values):
                raise ValueError(
                    f"A region holds one or more patches of 0 to {len(values) - 1}; got {patches!r}."
                )
            values, latents = values[rows], latents[rows]
        n = len(self._index)
        sums = np.bincount(latents.ravel(), weights=np.maximum(values, 0).ravel(), minlength=n)
        scores = sums / len(values) / np.maximum(self._index.max_activation, 1e-12)
        scores[self._index.dense | (sums == 0)] = -np.inf
        return self._best(scores, k, "image" if patches is None else "region")

    def fires_on(
        self,
        image: Image.Image,
        k: int = 5,
        *,
        backbone: Backbone,
        sae: "SparseAutoencoder",
        patches: Sequence[int] | None = None,
    ) -> list[Hit]:
        """`firing` of a picture: it is run through the backbone and the SAE first."""
        values, latents = sparse_codes([image], backbone, sae)
        view = TokenView(backbone, sae.cfg.backbone.tokens)
        if patches is not None and not view.reads_patches:
            raise ValueError("This SAE reads the CLS token alone, so no region can be asked for.")
        part = view.patches if view.reads_patches else slice(None)
        return self.firing(values[0, part], latents[0, part], k, patches=patches)

    def near(self, latent: int, k: int = 5, *, by: str = "decoder") -> list[Hit]:
        """Concepts near a latent by "decoder" cosine, "cofiring" or "meaning" (lit regions)."""
        if by != "meaning":
            rows = self._index.neighbours(latent, k, by=by)
            return [Hit(row.latent, row.name, row.score, by) for row in rows]
        own = self._embedded.rows[latent_number(latent, len(self._index))]
        if not own.any():
            return []
        scores = self._embedded.centred_cosines(own)
        scores[latent] = -np.inf
        return self._best(scores, k, "meaning")

    def by_statistic(
        self,
        name: str,
        k: int = 50,
        *,
        falling: bool = True,
        where: Mapping[str, tuple[float, float]] | None = None,
    ) -> list[Hit]:
        """Concepts sorted by a statistic, among those within all ranges of `where`.

        `where` has (lowest, highest) by statistic. Statistics: those of the index and all of
        `sae.concepts.statistics`. Dead latents and unknown values are left out.
        """
        _, k = _checked("statistic", k)
        values = values_of(self._index, name)
        kept = ~self._index.dead & np.isfinite(values)
        for other, (low, high) in (where or {}).items():
            column = values_of(self._index, other)
            kept &= (column >= low) & (column <= high)
        rows = np.flatnonzero(kept)
        order = np.argsort(-values[rows] if falling else values[rows], kind="stable")[:k]
        return [self._hit(latent, float(values[latent]), name) for latent in rows[order]]

    @property
    def _text_tower(self) -> dict[str, Any]:
        """Only an index that `has_text` is searched by a tower."""
        return self._index.text_tower or {}

    @lazy
    def _embedded(self) -> Embedded:
        return Embedded(self._index.embeddings)

    def _fits(self, feature: np.ndarray) -> np.ndarray:
        width = self._index.embeddings.shape[1]
        if feature.shape != (width,):
            raise ValueError(
                f"The backbone gives features of width {len(feature)}, the index holds width "
                f"{width}; use the backbone {self._text_tower['id']!r}."
            )
        return feature

    def _best(self, scores: np.ndarray, k: int, by: str) -> list[Hit]:
        """The k largest finite scores, falling, then rising number."""
        n = min(k, len(scores))
        rows = np.argpartition(-scores, n - 1)[:n]
        rows = rows[np.isfinite(scores[rows])]
        rows = rows[np.lexsort((rows, -scores[rows]))]
        return [self._hit(latent, float(scores[latent]), by) for latent in rows]

    def _hit(self, latent: int, score: float, by: str) -> Hit:
        return Hit(int(latent), self._index.names[latent], score, by)


@lru_cache(maxsize=2)
def _tower(id: str, revision: str | None) -> Backbone:
    """The text tower's backbone, loaded once; from the network only if its id is a Hub id."""
    return Backbone.from_pretrained(id, revision=revision)


def _checked(text: str, k: int) -> tuple[str, int]:
    """A query as it is searched: stripped; ValueError if there is nothing to search for."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError("Nothing to search for: give a word or a few, such as 'dog'.")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k is the number of concepts to find, at least 1; got {k!r}.")
    return text.strip()[:MAX_TEXT], k
