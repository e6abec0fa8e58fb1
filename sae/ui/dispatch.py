"""How the page's questions are answered: one way each, in turn, every failure one sentence.

Knows what a browser may send: anything. Does not know what the ways do.

A question is `{"way": name, …}`; its answer is JSON, or `{"problem": sentence}`. Questions of all
visitors and tabs wait here and nowhere else: MAX_WAITING are answered or wait, more are turned
away, and one at a time runs a model.
"""

import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from threading import BoundedSemaphore, Lock
from typing import Any, TypeVar

Json = dict[str, Any]
Way = Callable[[Json], Json]
T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_WAITING = 16
"""Questions that are answered or wait, of all visitors; more are turned away."""
BUSY = "Many questions are being answered at the moment. Try again in a few seconds."
LEFT = "Nobody waits for this answer any more."
NOT_UNDERSTOOD = "This request is not understood. Reload the page."
UNEXPECTED = "This could not be answered. Nothing else is affected: change something, or try another picture."
asker_left: ContextVar[threading.Event | None] = ContextVar("asker_left", default=None)
"""Set once the connection is gone over which the question came, where that is known."""
_PATH = re.compile(
    r"""(?:^|[\s'"(\[=:,<])  (?: ~?/[^\s/'"]+/ | ~/ | /[^\s/'"]+\.\w | [A-Za-z]:\\ | \\\\ | file: )
      | [\w.-]+/[\w./-]*\.(?:json|safetensors|np[yz]|py|toml|txt|pt|bin|parquet|webp|png|jpe?g)\b""",
    re.VERBOSE,
)


class QuestionError(Exception):
    """A question that cannot be answered. Its text is one sentence for the screen."""


_mine = threading.local()
"""`turn`: the lock that this thread holds while it is its question's turn to run a model."""


@contextmanager
def aside() -> Iterator[None]:
    """For work without a model, such as decoding a picture: others' questions have their turn."""
    turn: Lock | None = getattr(_mine, "turn", None)
    if turn is None:
        yield
        return
    _mine.turn = None
    turn.release()
    try:
        yield
    finally:
        turn.acquire()
        _mine.turn = turn


class Turns:
    """Whose turn it is: MAX_WAITING questions at a time, one of them with a model. One for a machine."""

    def __init__(self) -> None:
        self.seats, self.model = BoundedSemaphore(MAX_WAITING), Lock()


class Dispatch:
    """Every way to be asked, of all tabs; shared by all visitors.

    `turns`: those of the whole server, where several pages are on it; a page's own without.
    """

    def __init__(self, turns: Turns | None = None) -> None:
        self._ways: dict[str, tuple[Way, bool]] = {}
        self._turns = Turns() if turns is None else turns

    def offer(self, *, model: bool = True, **ways: Way) -> None:
        """Answer these ways from now on; with `model`, one question at a time.

        Raises ValueError if another tab has taken a name.
        """
        taken = sorted(ways.keys() & self._ways.keys())
        if taken:
            raise ValueError(f"ways {taken} are answered already; give the new ones other names")
        self._ways |= {name: (way, model) for name, way in ways.items()}

    def ask(self, asked: object) -> Json:
        """The answer to `{"way": name, …}`, with the question's ticket if it has one."""
        fields = fields_of(asked)
        way, model = self._ways.get(str(fields.get("way")), (None, False))
        try:
            if way is None:
                raise QuestionError(NOT_UNDERSTOOD)
            answer = self.run(lambda: way(fields), model=model)
        except QuestionError as error:
            answer = {"problem": str(error)}
        return {**answer, "ticket": _ticket(fields)} if "ticket" in fields else answer

    def run(self, act: Callable[[], T], *, model: bool = True) -> T:
        """`act()` in its turn; whatever it raises is told as a QuestionError."""
        try:
            with self._seat(), self._turn() if model else nullcontext():
                return act()
        except Exception as error:
            raise QuestionError(sentence_of(error)) from error

    def stream(self, asked: object, way: Callable[[Json], Iterator[Json]]) -> Iterator[Json]:
        """What `way` yields, step by step in turn with the other questions' models.

        The last answer has `ended` or `problem`; all have the question's ticket.
        """
        fields = fields_of(asked)
        ticket = {"ticket": _ticket(fields)}
        try:
            with self._seat():
                steps: Any = way(fields)
                try:
                    while (step := self._step(steps)) is not None:
                        yield {**ticket, **step}
                finally:
                    steps.close()
            yield {**ticket, "ended": True}
        except Exception as error:
            yield {**ticket, "problem": sentence_of(error)}

    def _step(self, steps: Iterator[Json]) -> Json | None:
        with self._turn():
            return next(steps, None)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time; a question whose asker has left meanwhile is dropped."""
        with self._turns.model:
            if (left := asker_left.get()) is not None and left.is_set():
                raise QuestionError(LEFT)
            _mine.turn = self._turns.model
            try:
                yield
            finally:
                _mine.turn = None

    @contextmanager
    def _seat(self) -> Iterator[None]:
        if not self._turns.seats.acquire(blocking=False):
            raise QuestionError(BUSY)
        try:
            yield
        finally:
            self._turns.seats.release()


def fields_of(asked: object) -> Json:
    """What was sent if it is an object, else an empty one."""
    return asked if isinstance(asked, dict) else {}


def sentence_of(error: Exception) -> str:
    """What went wrong, for the screen; what was not written for visitors goes to the log instead.

    Visitors are told the ValueErrors that `sae` itself raises, unless they name a file of the server.
    """
    text = str(error).strip()
    if isinstance(error, QuestionError):
        return text
    if (
        not isinstance(error, ValueError)
        or not _raised_here(error)
        or not text
        or _PATH.search(text)
    ):
        log.error("a question could not be answered", exc_info=error)
        return UNEXPECTED
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _raised_here(error: Exception) -> bool:
    """Whether code of this package raised it, not a library that the package called."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").split(".")[0] == "sae"


def _ticket(fields: Json) -> int:
    ticket = fields.get("ticket")
    return ticket if isinstance(ticket, int) else 0
