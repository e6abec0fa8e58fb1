"""Attributes that are made with their first use, once, however many threads ask.

Knows descriptors and locks only. `functools.cached_property` has no lock since Python 3.12: two
threads that ask first would both load a model.
"""

from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - used like `property`
    """A method as an attribute: its first use makes the value and keeps it, others wait for it."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make, self.name, self._lock = make, make.__name__, RLock()
        self.__doc__ = make.__doc__

    def __set_name__(self, _owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "lazy[T]": ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> "lazy[T] | T":  # noqa: ARG002
        if instance is None:
            return self
        kept = instance.__dict__
        with self._lock:
            if self.name not in kept:
                kept[self.name] = self.make(instance)
        return kept[self.name]
