"""Ctrl-C and SIGTERM as a request that the loop honours between two steps.

Knows signals only. A second signal, a while later, ends the process the ordinary way.
"""

import contextlib
import signal
import time
from collections.abc import Iterator

GRACE_SECONDS = 5.0
"""Signals that follow the first within this time are part of it: launchers pass on to their workers
what a terminal has already sent to all of them."""


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """A StopRequest that SIGINT and SIGTERM set while the block runs (in the main thread)."""
    request, first = StopRequest(), 0.0
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: object) -> None:
        nonlocal first
        if not request.requested:
            request.requested, first = True, time.monotonic()
        elif time.monotonic() - first > GRACE_SECONDS:
            restore()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
