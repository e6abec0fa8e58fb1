"""Training commands: SAEs, concept indexes, and the emoji world. The library never imports this.

A command imports for seconds before its `main` runs; a Ctrl-C meanwhile ends in a sentence too.
"""

import sys
from types import TracebackType


def _say_stopped(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\nstopped before anything began\n")
    else:
        sys.__excepthook__(kind, error, trace)


if sys.excepthook is sys.__excepthook__ and not hasattr(sys, "ps1"):
    sys.excepthook = _say_stopped
