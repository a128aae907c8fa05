"""Rows as typed objects, made at the price of a tuple: JSON is parsed on first access, and most is never accessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from typing import Any, ClassVar, Self, TypeVar

from eventstore.json_text import from_json

_new, _set = object.__new__, object.__setattr__


class LazyRow:
    """An object whose fields are the values of a row; see :func:`lazy_row`."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # every subclass is a dataclass
    _row: Sequence[Any]

    def __init__(self, *values: Any, **named: Any) -> None:
        names = [field.name for field in fields(type(self))]
        given = dict(zip(names, values, strict=False)) | named
        if len(values) + len(named) != len(names) or given.keys() != set(names):
            raise TypeError(f"{type(self).__name__} takes each of {', '.join(names)} once")
        _set(self, "_row", [given[name] for name in names])

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Return the object of a row: the fields in their order, JSON as the bytes of PostgreSQL's binary format."""
        instance = _new(cls)
        _set(instance, "_row", row)
        return instance

    def _restored(self, name: str, value: Any) -> Any:
        """Return the parsed value of a JSON field as it was sent."""
        return value


_Class = TypeVar("_Class", bound=type[LazyRow])


def lazy_row(*json_fields: str) -> Callable[[_Class], _Class]:
    """Return a decorator of a dataclass without ``__init__`` whose fields read the row."""

    def field_of_row(index: int) -> property:
        return property(lambda instance: instance._row[index])

    def decorate(row_type: _Class) -> _Class:
        for index, field in enumerate(fields(row_type)):
            is_json = field.name in json_fields
            setattr(row_type, field.name, _JsonField(index, field.name) if is_json else field_of_row(index))
        return row_type

    return decorate


class _JsonField:
    """A field that is parsed once. Bytes are unparsed: no parsed JSON value has this type."""

    def __init__(self, index: int, name: str) -> None:
        self._index = index
        self._name = name

    def __get__(self, instance: LazyRow | None, owner: type[LazyRow]) -> Any:
        if instance is None:
            return self
        value = instance._row[self._index]
        if isinstance(value, bytes):
            value = instance._restored(self._name, from_json(value[1:]))
        instance.__dict__[self._name] = value  # found before this descriptor from now on
        return value
