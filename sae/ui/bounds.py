"""How much is asked of the server at a time: of all visitors, of one address, and what is said to more.

Knows HTTP's refusals and Gradio's queues. Does not know addresses; `sae.ui.guard` asks for places here.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    import gradio as gr

MAX_ASKED, MAX_ASKED_BY_ONE = 12, 8
"""Questions outside of the queue at a time, and of one address; fewer than `Dispatch` has seats."""
MAX_UPLOADS, MAX_UPLOADS_BY_ONE = 8, 4


class Refusal(Exception):
    """A request that is not passed on: its status, one sentence, and seconds until a retry is worth it."""

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after = status, retry_after

    def response(self) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse({"detail": str(self)}, self.status, headers)


class Counted:
    """How many are at work, in all and of each address."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self.most, self.most_of_one = most, most_of_one
        self._of: Counter[str] = Counter()

    @contextmanager
    def one(self, address: str) -> Iterator[None]:
        """A place for the duration, or a Refusal."""
        if self._of.total() >= self.most:
            raise busy(503, 2)
        if self._of[address] >= self.most_of_one:
            raise busy(429, 2)
        self._of[address] += 1
        try:
            yield
        finally:
            self._of[address] -= 1
            self._of += Counter()  # forgets addresses without any


def busy(status: int, seconds: int) -> Refusal:
    """503: many are asking; 429: this one asks for too much."""
    who = "Many questions are" if status == 503 else "Many of your questions are"
    return Refusal(status, f"{who} being answered; try again in {seconds} seconds.", seconds)


class Bounds:
    """How much is asked of the whole server at a time, whichever of its pages is asked."""

    def __init__(self) -> None:
        self.asked = Counted(MAX_ASKED, MAX_ASKED_BY_ONE)
        self.uploads = Counted(MAX_UPLOADS, MAX_UPLOADS_BY_ONE)
        self.pages: list[gr.Blocks] = []
        """Those whose queues count together; a page that is alone need not be here."""

    def waiting(self, page: "gr.Blocks") -> list[Any]:
        """Gradio's events that wait, of `page` and of those beside it."""
        pages = [page, *(one for one in self.pages if one is not page)]
        queues = [q for one in pages for q in one._queue.event_queue_per_concurrency_id.values()]
        return [event for queue in queues for event in queue.queue if event.alive]
