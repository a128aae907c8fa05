"""Rows of the read tables as typed objects, made at the price of a tuple.

An object keeps its row as it was read, and reads JSON when it is asked for: most of it nobody looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import UUID

from eventstore.json_text import load
from eventstore.member_order import restore, restore_members
from eventstore.message_format import sent_from_row

_new, _set = object.__new__, object.__setattr__


class _Kept:
    """An object that keeps the values of its fields as one list.

    A row that was read ends with the orders of the members in its JSON columns (:mod:`eventstore.member_order`).
    """

    _row: list[Any]

    def __init__(self, *values: Any, **named: Any) -> None:
        names = [field.name for field in fields(type(self))]  # type: ignore[arg-type]
        given = dict(zip(names, values, strict=False)) | named
        if len(values) + len(named) != len(names) or given.keys() != set(names):
            raise TypeError(f"{type(self).__name__} takes each of {', '.join(names)} once")
        _set(self, "_row", [given[name] for name in names])

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """The object of a row: the fields in their order, JSON as the bytes of PostgreSQL's binary format; then the
        column ``member_order``.
        """
        kept = _new(cls)
        _set(kept, "_row", list(row))
        return kept

    def _read(self, name: str, value: Any) -> Any:
        """The value of a JSON column with its members in the order in which they were sent."""
        restore(value, self._order(name))
        return value

    def _order(self, name: str) -> Any:
        """What is stored of the order of the members in a column."""
        place = len(fields(type(self)))  # type: ignore[arg-type]
        orders = self._row[place] if len(self._row) > place else None
        if isinstance(orders, bytes):
            orders = self._row[place] = load(orders[1:])
        return orders.get(name) if isinstance(orders, dict) else None

    @property
    def size(self) -> int:
        """Characters and bytes of its values, as they were read."""
        return sum(len(value) for value in self._row if isinstance(value, str | bytes))


_Class = TypeVar("_Class", bound=type[_Kept])


def _of_row(*json_columns: str) -> Callable[[_Class], _Class]:
    """Lets the fields of a dataclass be read from its row."""

    def decorate(kind: _Class) -> _Class:
        for index, field in enumerate(fields(kind)):  # type: ignore[arg-type]
            column = _json_column(index, field.name) if field.name in json_columns else _column(index)
            setattr(kind, field.name, column)
        return kind

    return decorate


def _column(index: int) -> property:
    return property(lambda kept: kept._row[index])


def _json_column(index: int, name: str) -> property:
    def read(kept: _Kept) -> Any:
        value = kept._row[index]
        if isinstance(value, bytes):  # never a JSON value
            value = kept._row[index] = kept._read(name, load(value[1:]))
        return value

    return property(read)


@_of_row("metadata", "forked_from")
@dataclass(frozen=True, init=False)
class Conversation(_Kept):
    """A row of the table ``conversations``."""

    id: UUID
    name: str
    is_active: bool
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any] | None
    tenant_id: str
    given_id: str | None
    is_deleted: bool
    message_count: int
    version: int
    forked_from: dict[str, Any] | None


@_of_row("parts", "metadata", "extra")
@dataclass(frozen=True, init=False)
class Message(_Kept):
    """A row of the table ``messages``."""

    id: UUID
    conversation_id: UUID
    role: str
    content: str
    parts: list[Any] | None
    created_at: datetime
    metadata: dict[str, Any] | None
    tenant_id: str
    given_id: str | None
    version: int
    actor: str
    extra: dict[str, Any] | None

    @property
    def sent(self) -> dict[str, Any]:
        """The message as it was sent."""
        return sent_from_row(
            self.role, self.content, self.parts, self.metadata, self.extra, sent_order=self._order("sent")
        )

    def _read(self, name: str, value: Any) -> Any:
        # The projection puts a text among the members that were sent as extra, and never in the place of one.
        text = value.pop("content") if name == "extra" and isinstance(value.get("content"), str) else None
        super()._read(name, value)
        return value if text is None else value | {"content": text}


@_of_row("metadata", "status_message", "artifacts", "extra", "status_extra")
@dataclass(frozen=True, init=False)
class Task(_Kept):
    """A row of the table ``tasks``, with the chunks of its artifacts in order."""

    id: UUID
    conversation_id: UUID
    status: str
    description: str
    created_at: datetime
    updated_at: datetime
    metadata: dict[str, Any] | None
    tenant_id: str
    given_id: str | None
    version: int
    status_message: dict[str, Any] | None
    artifacts: list[dict[str, Any]]
    extra: dict[str, Any] | None
    status_extra: dict[str, Any] | None

    def _read(self, name: str, value: Any) -> Any:
        if name == "artifacts":
            for chunk in value:
                restore_members(chunk, chunk.pop("member_order", None))
        super()._read(name, value)
        added = self._order("added_history") if name == "extra" else None
        return value if added is None else _with_history(value, added)


def _with_history(extra: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Return the further members of a task with its whole history.

    Args:
        added: ``chunks``, the messages that came to it one after the other; ``after``, the members with the history
            that they follow, if a later event has replaced those. See ``projections/tasks.sql``.
    """
    whole, after = extra, added["after"]
    if after is not None:
        whole = after["extra"] or {}
        restore(whole, after["order"])
    before = whole.get("history")
    history = list(before) if isinstance(before, list) else []
    for chunk in added["chunks"]:
        restore(chunk["messages"], chunk["order"])
        history += chunk["messages"]
    return extra | {"history": history}
