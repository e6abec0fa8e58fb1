"""What the Steer tab asks of a classifier and how it is answered, as plain JSON.

Knows: a ClassSteerer, the catalogue and what a browser may send. Does not know: Gradio.
What the model makes of a picture is kept for a while, by what the browser asked for, so that a slider moves
the classes without another run of the model where the classifier is linear; the picture is not kept.
"""

from collections import OrderedDict
from functools import partial
from threading import Lock

from sae.steering.candidates import Candidate
from sae.steering.class_candidates import class_candidates
from sae.steering.classes import ClassSteerer, SeenClasses
from sae.steering.edits import SteerRequest
from sae.storage import plain_key
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch, Json
from sae.ui.rack_desk import MAX_WORD, Finder, RackDesk

UP, OFF = (0.25, 0.5, 1.0), (0.0,)
"""Strengths at which concepts are tried: to make it say a class, and to keep it from saying it."""
MAX_SEEN = 6
N_CLASSES = 6
"""Classes that are listed as the picture is; those that rise come below."""


class ClassDesk(RackDesk):
    """Answers the Steer tab of a classifier; shared by all visitors."""

    def __init__(self, steerer: ClassSteerer, concepts: ConceptsDesk, catalogue: Catalogue) -> None:
        super().__init__(catalogue)
        self.steerer, self.concepts = steerer, concepts
        self._seen: OrderedDict[str, SeenClasses] = OrderedDict()
        self._lock = Lock()

    def offer(self, dispatch: Dispatch) -> None:
        """Answer `bars`, `class_ladder`, `class_candidates`, `class_words` and `suggest`."""
        dispatch.offer(bars=self._bars, class_ladder=self._ladder)
        dispatch.offer(class_candidates=self._candidates)
        dispatch.offer(model=False, suggest=self.suggest, class_words=self._words)

    def _asked(self, fields: Json) -> tuple[SeenClasses, SteerRequest]:
        request = SteerRequest.from_json(fields.get("steer"))
        key = plain_key(fields.get("picture"))
        with self._lock:
            seen = self._seen.get(key)
        if seen is None:
            seen = self.steerer.prepare(self.concepts.picture(fields.get("picture")))
        with self._lock:
            self._seen[key] = seen
            self._seen.move_to_end(key)
            while len(self._seen) > MAX_SEEN:
                self._seen.popitem(last=False)
        return seen, request

    def _bars(self, fields: Json) -> Json:
        seen, request = self._asked(fields)
        answers = self.steerer.classify(
            seen,
            request.edits,
            error_term=request.error_term,
            control=bool(request.edits),
            control_seed=request.control_seed,
        )
        return answers.to_json(N_CLASSES)

    def _ladder(self, fields: Json) -> Json:
        seen, request = self._asked(fields)
        word = str(fields.get("word") or "").strip()[:MAX_WORD] or None
        ladder = self.steerer.ladder(seen, request.edits, word=word, error_term=request.error_term)
        return {**ladder.to_json(), "means": self._means(word)}

    def _candidates(self, fields: Json) -> Json:
        seen, _ = self._asked(fields)
        word, less = str(fields.get("word") or "").strip()[:MAX_WORD], fields.get("less") is True
        find = partial(class_candidates, self.steerer, seen, word, less=less)
        doses = OFF if less else UP
        if less:
            find = partial(_of_those_that_fire, find, seen)
        return {**self.found(find, fields, doses), "means": self._means(word)}

    def _means(self, word: str | None) -> list[str]:
        """The classes that a word stands for; the page says so where they are several."""
        numbers = self.steerer.numbers(word) if word else []
        return [self.steerer.class_names[number] for number in numbers]

    def _words(self, _fields: Json) -> Json:
        return {"words": [*self.steerer.wider, *self.steerer.class_names]}


def _of_those_that_fire(
    find: Finder,
    seen: SeenClasses,
    *,
    dose: float = 1.0,
    n: int = 8,
    latents: list[int] | None = None,
) -> list[Candidate]:
    """Whatever else is put in keeps a class from being said: asked for is what speaks for it here."""
    values, indices = seen.activations.code
    firing = indices[values > 0].unique().tolist()
    tried = firing if latents is None else [one for one in latents if one in firing]
    return find(dose=dose, n=n, latents=tried) if tried else []
