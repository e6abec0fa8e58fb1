"""How a tab's questions are answered: one way each, one at a time, every failure one sentence.

Knows what a browser may send: anything. Does not know what the ways do.
"""

import logging
from collections.abc import Callable, Mapping
from threading import Lock

from sae.images import ImageError

Json = dict[str, object]
log = logging.getLogger(__name__)
UNEXPECTED = "This could not be answered. Nothing else is affected: change something and try again."


def answered(asked: object, ways: Mapping[str, Callable[[Json], Json]], turn: Lock) -> Json:
    """What `ways[asked["way"]]` says to `asked`, or `{"problem": sentence}`."""
    fields = asked if isinstance(asked, dict) else {}
    way = ways.get(str(fields.get("way")))
    if way is None:
        return {"problem": "This request is not understood. Reload the page."}
    try:
        with turn:
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
