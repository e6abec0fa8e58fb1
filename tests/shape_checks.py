"""What `--jaxtyping-packages` checks every function of `sae` with: shapes and dtypes, at each call.

Annotations without a shape are left to mypy. `unchecked` switches the checks off where a test gives
wrong shapes on purpose, to see what the library itself says of them.
"""

import contextlib
import typing
from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

_WITH_INTS = beartype(conf=BeartypeConf(is_pep484_tower=True))


def shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, checked wherever an annotation has a shape; a whole number may stand for a float."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if _has_shape(hint)}
    return _WITH_INTS(function) if function.__annotations__ else function


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_has_shape(part) for part in typing.get_args(hint))


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """No checks within this block."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
