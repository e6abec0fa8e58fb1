"""How a tab's questions are answered: one way each, one at a time, every failure one sentence.

Knows what a browser may send: anything. Does not know what the ways do.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from sae.images import ImageError

Json = dict[str, object]
log = logging.getLogger(__name__)
BUSY = "Many questions are being answered at the moment. Try again in a few seconds."
MAX_WAITING = 8
"""Questions of one tab that are answered or wait, of all visitors; more are turned away."""
UNEXPECTED = "This could not be answered. Nothing else is affected: change something and try again."


class Turn:
    """One question at a time; MAX_WAITING at most, so that no crowd holds up the rest of the page."""

    def __init__(self) -> None:
        self._seats, self._lock = BoundedSemaphore(MAX_WAITING), Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn; ValueError if too many wait already."""
        if not self._seats.acquire(blocking=False):
            raise ValueError(BUSY)
        try:
            with self._lock:
                yield
        finally:
            self._seats.release()


def answered(asked: object, ways: Mapping[str, Callable[[Json], Json]], turn: Turn) -> Json:
    """What `ways[asked["way"]]` says to `asked`, or `{"problem": sentence}`."""
    fields = asked if isinstance(asked, dict) else {}
    way = ways.get(str(fields.get("way")))
    if way is None:
        return {"problem": "This request is not understood. Reload the page."}
    try:
        with turn.taken():
            return way(fields)
    except Exception as error:
        return {"problem": problem(error)}


def problem(error: Exception) -> str:
    """What went wrong, for the screen; what nobody expected goes to the log instead."""
    if not isinstance(error, (ImageError, ValueError)):
        log.error("a question could not be answered", exc_info=error)
        return UNEXPECTED
    text = str(error).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
