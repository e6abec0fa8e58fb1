"""What the Steer tab asks and how it is answered, as plain JSON.

Knows: a Steerer, the catalogue and what a browser may send. Does not know: Gradio.
What the model makes of a visitor's picture is kept for a while, by what the browser asked for, without
the picture; nobody is told of another's, and running answers are stopped by the session that started
them only.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sae.lazy import lazy
from sae.steering.answers import unknown_words
from sae.steering.candidates import MAX_VERIFIED, Candidate, candidates
from sae.steering.doses import dose_response
from sae.steering.edits import SteerRequest
from sae.storage import plain_key
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch, Json
from sae.ui.questions import DESCRIBE, asks_to_describe, doubt, only_describes

if TYPE_CHECKING:
    from sae.steering import Prepared, Steerer
    from sae.steering.answers import CaptionStream

MAX_PREPARED = 6
MAX_RUNNING = 64
MAX_CAPTIONS = 64
MAX_SUGGESTED = 12
MAX_WRITTEN, USUAL_WRITTEN = 256, 48
"""Tokens of an answer on the page: at most, and if nobody says."""
MAX_GUESSED, MAX_NAMED, MAX_SHOWN = 10, 4, 8
"""Concepts that are tried for a word: by the gradient and by their names; and those that are shown."""
DOSES = (1.0, 2.0, 3.0)
"""Strengths at which each is tried."""
WORTH_TAKING = 0.01
"""Probability from which a word can be kept from being said."""
MAX_START, MAX_WORD = 200, 60
"""Letters of the start of an answer, and of a word, that are read."""


class SteerDesk:
    """Answers the Steer tab; shared by all visitors. The model is loaded with the first question."""

    def __init__(
        self,
        load: Callable[[], "Steerer"],
        concepts: ConceptsDesk,
        catalogue: Catalogue,
        *,
        bundled: bool = False,
    ) -> None:
        """`bundled`: whether `load` gives the bundled model, of which it is known what it was taught."""
        self.bundled = bundled
        self._load, self.concepts, self.catalogue = load, concepts, catalogue
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()
        self._running: OrderedDict[str, CaptionStream] = OrderedDict()
        self._captions: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    @lazy
    def steerer(self) -> "Steerer":
        """The model and its SAE."""
        return self._load()

    def offer(self, dispatch: Dispatch) -> None:
        """Answer `next`, `ladder`, `candidates` and `suggest`."""
        dispatch.offer(next=self._next, ladder=self._ladder, candidates=self._candidates)
        dispatch.offer(model=False, suggest=self._suggest)

    def captions(self, fields: Json, session: str) -> Iterator[Json]:
        """Original, steered and control text as they grow; the last one has `done`."""
        prepared, request = self._asked(fields)
        stream = self.steerer.stream(prepared, request, control=bool(request.edits))
        self._remember(session, stream)
        whole = None
        try:
            for captions in stream:
                whole = captions if captions.done else None
                yield captions.to_json()
        finally:
            stream.stop()
        if whole is not None and not asks_to_describe(request.prompt):
            caption = self._caption(prepared, request, fields)
            yield {"only_describes": only_describes(whole.original, caption)}

    def _caption(self, prepared: "Prepared", request: SteerRequest, fields: Json) -> str:
        """What the undisturbed model says when it is asked to describe the picture."""
        key = plain_key([fields.get("picture"), request.max_new_tokens])
        with self._lock:
            known = self._captions.get(key)
        if known is None:
            known = self.steerer.generate(
                prepared, DESCRIBE, max_new_tokens=request.max_new_tokens
            ).original
            with self._lock:
                self._captions[key] = known
                while len(self._captions) > MAX_CAPTIONS:
                    self._captions.popitem(last=False)
        return known

    def stop(self, session: str) -> None:
        """Write no further word for this session."""
        with self._lock:
            stream = self._running.pop(session, None)
        if stream is not None:
            stream.stop()

    def _asked(self, fields: Json) -> "tuple[Prepared, SteerRequest]":
        request = SteerRequest.from_json(fields.get("steer"))
        if request.max_new_tokens > MAX_WRITTEN:
            raise ValueError(f"at most {MAX_WRITTEN} tokens are written here")
        asked = fields.get("picture")
        key = plain_key(asked)
        with self._lock:
            known = self._prepared.get(key)
        image = known or self.concepts.picture(asked)
        prepared = self.steerer.prepare(image, request.prompt, request.answer_start)
        prepared = replace(prepared, image=lambda: self.concepts.picture(asked))
        with self._lock:
            self._prepared[key] = prepared
            self._prepared.move_to_end(key)
            while len(self._prepared) > MAX_PREPARED:
                self._prepared.popitem(last=False)
        return prepared, request

    def _remember(self, session: str, stream: "CaptionStream") -> None:
        with self._lock:
            earlier = self._running.pop(session, None)
            self._running[session] = stream
            while len(self._running) > MAX_RUNNING:
                self._running.popitem(last=False)
        if earlier is not None:
            earlier.stop()

    def _next(self, fields: Json) -> Json:
        prepared, request = self._asked(fields)
        tokens = self.steerer.next_tokens(
            prepared,
            edits=request.edits,
            error_term=request.error_term,
            answer_start=str(fields.get("start") or "")[:MAX_START],
            n=6,
        )
        change = prepared.activations.change(request.edits, error_term=request.error_term)
        return {
            **tokens.to_json(),
            "relative_change": prepared.activations.norms(change),
            "doubt": doubt(
                request.prompt,
                unknown_words(self.steerer.vlm.tokenizer, request.prompt),
                bundled=self.bundled,
            ),
        }

    def _ladder(self, fields: Json) -> Json:
        prepared, request = self._asked(fields)
        word = str(fields.get("word") or "").strip()[:MAX_WORD] or None
        ladder = dose_response(self.steerer, prepared, request, word=word)
        return {**ladder.to_json(), "monotonic": ladder.monotonic}

    def _candidates(self, fields: Json) -> Json:
        prepared, _ = self._asked(fields)
        prepared = prepared.with_prompt(prepared.prompt, str(fields.get("start") or "")[:MAX_START])
        word, less = str(fields.get("word") or "")[:MAX_WORD], fields.get("less") is True
        best = self._best(prepared, word, less)
        return {
            "word": word,
            "found": [
                {**c.to_json(), **self._about(c.edit.latent), "does": does(c, less)} for c in best
            ],
        }

    def _best(self, prepared: "Prepared", word: str, less: bool) -> "list[Candidate]":
        """The edits that truly move a word most: of concepts that the gradient names and of those
        that are called so, each at the smallest of DOSES that does it, or else its best."""
        named = self.catalogue.matching(word, MAX_NAMED)
        guessed = candidates(self.steerer, prepared, word, less=less, n=MAX_GUESSED)
        tried = list({c.edit.latent: None for c in guessed} | dict.fromkeys(named))
        best: dict[int, Candidate] = {}
        for dose in DOSES:
            for candidate in candidates(
                self.steerer, prepared, word, dose=dose, less=less, n=MAX_VERIFIED, latents=tried
            ):
                latent = candidate.edit.latent
                if latent not in best or (
                    not does(best[latent], less) and better(candidate, best[latent], less)
                ):
                    best[latent] = candidate
        moved = [c for c in best.values() if (c.after < c.before if less else c.after > c.before)]
        moved.sort(key=lambda c: c.after if less else -c.after)
        return moved[:MAX_SHOWN]

    def _suggest(self, fields: Json) -> Json:
        latents = fields.get("latents")
        if isinstance(latents, list):
            chosen = [n for n in latents[:32] if self.catalogue.known(n)]
        else:
            chosen = self.catalogue.matching(
                str(fields.get("text") or "")[:MAX_WORD], MAX_SUGGESTED
            )
        return {"found": [self._about(latent) for latent in chosen]}

    def _about(self, latent: int) -> Json:
        return {
            "latent": latent,
            "name": self.catalogue.label(latent),
            "maximum": self.catalogue.maximum(latent),
            "icon": self.catalogue.icons([latent]).get(str(latent), ""),
        }


def does(candidate: Candidate, less: bool) -> bool:
    """Whether an edit makes a word the likely next one, or takes half of a probability worth taking."""
    if less:
        return candidate.before >= WORTH_TAKING and candidate.after <= candidate.before / 2
    return candidate.after >= 0.5


def better(one: Candidate, other: Candidate, less: bool) -> bool:
    """Whether an edit moves a word further than another does."""
    return one.after < other.after if less else one.after > other.after
