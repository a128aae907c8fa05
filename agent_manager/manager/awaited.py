"""Results that callers may await or not: some servers await what the interface declares to be synchronous.

The result is there when the call returns. To await it gives it once more, so both ways of calling do the same.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


class Done:
    """Nothing, which may be awaited."""

    def __await__(self) -> Generator[Any, None, None]:
        """Nothing."""
        yield from ()


class AwaitableList(list[T]):
    """A list that may be awaited."""

    def __await__(self) -> Generator[Any, None, list[T]]:
        """Itself."""
        yield from ()
        return self


def awaitable(value: T) -> T:
    """The value, of its own class, that can be awaited too, where its class can be extended; others as they are."""
    if isinstance(value, BaseModel):
        value.__class__ = _with_await(type(value))
    return value


@cache
def _with_await(kind: type) -> Any:
    if hasattr(kind, "__await__"):
        return kind

    def await_(self: Any) -> Generator[Any, None, Any]:
        yield from ()
        return self

    def equals(self: Any, other: object) -> Any:
        if not (isinstance(other, kind) and isinstance(other, BaseModel)):
            return NotImplemented
        return vars(self) == vars(other) and self.model_extra == other.model_extra

    namespace = {
        "__await__": await_, "__eq__": equals, "__hash__": None, "__module__": kind.__module__,
        "__qualname__": kind.__qualname__, "__doc__": kind.__doc__,
    }  # fmt: skip
    return type(kind)(kind.__name__, (kind,), namespace)
