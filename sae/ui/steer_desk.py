"""What the Steer tab asks and how it is answered, as plain JSON.

Knows: a Steerer, the catalogue and what a browser may send. Does not know: Gradio.
A visitor's pictures are kept prepared for a while, by what the browser asked for; nobody is told
of another's, and running answers are stopped by the session that started them only.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from sae.steering.edits import SteerRequest
from sae.steering.snippet import python_for
from sae.storage import plain_key
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import Openings
from sae.ui.dispatch import Json, Turn, answered, problem

if TYPE_CHECKING:
    from sae.steering import Prepared, Steerer
    from sae.steering.answers import CaptionStream

MAX_PREPARED = 6
MAX_RUNNING = 64
MAX_SUGGESTED = 12


class SteerDesk:
    """Answers the Steer tab; shared by all visitors. The model is loaded with the first question."""

    def __init__(
        self,
        load: Callable[[], "Steerer"],
        openings: Openings,
        catalogue: Catalogue,
        sources: tuple[str, str] = ("bundled", "bundled"),
    ) -> None:
        """`sources` names the model and the SAE that `load` loads, for the Python on the page."""
        self.sources = sources
        self._load, self.openings, self.catalogue = load, openings, catalogue
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()
        self._running: OrderedDict[str, CaptionStream] = OrderedDict()
        self._lock, self._turn = threading.Lock(), Turn()

    @cached_property
    def steerer(self) -> "Steerer":
        """The model and its SAE."""
        return self._load()

    def captions(self, asked: object, session: str) -> Iterator[Json]:
        """Original, steered and control text as they grow; the last one has `done`."""
        fields = asked if isinstance(asked, dict) else {}
        ticket = fields.get("ticket") if isinstance(fields.get("ticket"), int) else 0
        try:
            prepared, request = self._asked(fields)
            stream = self.steerer.stream(prepared, request, control=bool(request.edits))
            self._remember(session, stream)
            try:
                for found in stream:
                    yield {"ticket": ticket, **found.to_json()}
            finally:
                stream.stop()
            yield {"ticket": ticket, "ended": True}
        except Exception as error:
            yield {"ticket": ticket, "problem": problem(error)}

    def stop(self, session: str) -> None:
        """Write no further word for this session."""
        with self._lock:
            stream = self._running.pop(session, None)
        if stream is not None:
            stream.stop()

    def answer(self, asked: object) -> Json:
        """One of `next`, `ladder`, `candidates` or `suggest`, or `{"problem": sentence}`."""
        ways = {
            "next": self._next,
            "ladder": self._ladder,
            "candidates": self._candidates,
            "suggest": self._suggest,
        }
        return answered(asked, ways, self._turn)

    def _asked(self, fields: Json) -> "tuple[Prepared, SteerRequest]":
        request = SteerRequest.from_json(fields.get("steer"))
        key = plain_key(fields.get("picture"))
        with self._lock:
            known = self._prepared.get(key)
        image = known or self.openings.picture(fields.get("picture"))
        prepared = self.steerer.prepare(image, request.prompt, request.answer_start)
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
        found = self.steerer.next_tokens(
            prepared,
            edits=request.edits,
            error_term=request.error_term,
            answer_start=str(fields.get("start") or "")[:200],
            n=6,
        )
        change = prepared.activations.change(request.edits, error_term=request.error_term)
        model, sae = self.sources
        return {
            **found.to_json(),
            "relative_change": prepared.activations.norms(change),
            "python": python_for(request, model, None if model == sae == "bundled" else sae),
        }

    def _ladder(self, fields: Json) -> Json:
        from sae.steering.doses import dose_response

        prepared, request = self._asked(fields)
        word = str(fields.get("word") or "").strip()[:60] or None
        found = dose_response(self.steerer, prepared, request, word=word)
        return {**found.to_json(), "monotonic": found.monotonic}

    def _candidates(self, fields: Json) -> Json:
        from sae.steering.candidates import candidates

        prepared, _ = self._asked(fields)
        prepared = prepared.with_prompt(prepared.prompt, str(fields.get("start") or "")[:200])
        word, less = str(fields.get("word") or "")[:60], fields.get("less") is True
        found = candidates(self.steerer, prepared, word, less=less, n=8)
        return {
            "word": word,
            "found": [{**c.to_json(), **self._about(c.edit.latent)} for c in found],
        }

    def _suggest(self, fields: Json) -> Json:
        latents = fields.get("latents")
        if isinstance(latents, list):
            chosen = [n for n in latents[:32] if self.catalogue.known(n)]
        else:
            chosen = self.catalogue.matching(str(fields.get("text") or "")[:60], MAX_SUGGESTED)
        return {"found": [self._about(latent) for latent in chosen]}

    def _about(self, latent: int) -> Json:
        return {
            "latent": latent,
            "name": self.catalogue.label(latent),
            "maximum": self.catalogue.maximum(latent),
            "icon": self.catalogue.icons([latent]).get(str(latent), ""),
        }
