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
from functools import partial
from typing import TYPE_CHECKING

from sae.lazy import lazy
from sae.steering.answers import unknown_words
from sae.steering.candidates import candidates
from sae.steering.doses import dose_response
from sae.steering.edits import SteerRequest
from sae.storage import plain_key
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch, Json
from sae.ui.questions import DESCRIBE, asks_to_describe, doubt, only_describes
from sae.ui.rack_desk import MAX_WORD, RackDesk

if TYPE_CHECKING:
    from sae.steering import Prepared, Steerer
    from sae.steering.answers import CaptionStream

MAX_PREPARED = 6
MAX_RUNNING = 64
MAX_CAPTIONS = 64
MAX_WRITTEN, USUAL_WRITTEN = 256, 48
"""Tokens of an answer on the page: at most, and if nobody says."""
MAX_START = 200
"""Letters of the start of an answer that are read."""


class SteerDesk(RackDesk):
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
        super().__init__(catalogue)
        self.bundled = bundled
        self._load, self.concepts = load, concepts
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
        dispatch.offer(model=False, suggest=self.suggest)

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
        return self.found(partial(candidates, self.steerer, prepared, word, less=less), fields)
