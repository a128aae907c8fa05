"""Rows of the read tables as typed objects, made at the price of a tuple.

An object keeps its row as it was read, and parses JSON on first access: most of it is never accessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import UUID

from eventstore.json_text import from_json
from eventstore.member_order import restore, restore_members
from eventstore.message_format import sent_from_row


class LazyRow:
    """An object whose fields are the values of a row.

    A row that was read has one more value: the order of the members in its JSON columns
    (:mod:`eventstore.member_order`).
    """

    _row: list[Any]

    def __init__(self, *values: Any, **named: Any) -> None:
        names = [field.name for field in fields(type(self))]  # type: ignore[arg-type]
        given = dict(zip(names, values, strict=False)) | named
        if len(values) + len(named) != len(names) or given.keys() != set(names):
            raise TypeError(f"{type(self).__name__} takes each of {', '.join(names)} once")
        object.__setattr__(self, "_row", [given[name] for name in names])

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Return the object of a row.

        Args:
            row: the fields in their order, JSON as the bytes of PostgreSQL's binary format; then ``member_order``.
        """
        instance = object.__new__(cls)
        object.__setattr__(instance, "_row", list(row))
        return instance

    @property
    def size(self) -> int:
        """Characters and bytes of its values, as they were read."""
        return sum(len(value) for value in self._row if isinstance(value, str | bytes))

    def _restored(self, name: str, value: Any) -> Any:
        """Return the value of a JSON column with its members in the order in which they were sent."""
        restore(value, self._order(name))
        return value

    def _order(self, name: str) -> Any:
        """Return what is stored of the order of the members in a column."""
        index = len(fields(type(self)))  # type: ignore[arg-type]
        orders = self._row[index] if len(self._row) > index else None
        if isinstance(orders, bytes):
            orders = self._row[index] = from_json(orders[1:])
        return orders.get(name) if isinstance(orders, dict) else None


_Class = TypeVar("_Class", bound=type[LazyRow])


def _read_from_row(*json_columns: str) -> Callable[[_Class], _Class]:
    """Return a decorator that makes the fields of a dataclass properties which read its row."""

    def column(index: int) -> property:
        return property(lambda row: row._row[index])

    def json_column(index: int, name: str) -> property:
        def read(row: LazyRow) -> Any:
            value = row._row[index]
            if isinstance(value, bytes):  # not parsed yet
                value = row._row[index] = row._restored(name, from_json(value[1:]))
            return value

        return property(read)

    def decorate(row_type: _Class) -> _Class:
        for index, field in enumerate(fields(row_type)):  # type: ignore[arg-type]
            is_json = field.name in json_columns
            setattr(row_type, field.name, json_column(index, field.name) if is_json else column(index))
        return row_type

    return decorate


@_read_from_row("metadata", "forked_from")
@dataclass(frozen=True, init=False)
class Conversation(LazyRow):
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


@_read_from_row("parts", "metadata", "extra")
@dataclass(frozen=True, init=False)
class Message(LazyRow):
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

    def _restored(self, name: str, value: Any) -> Any:
        # The projection adds a text to the members that were sent as extra, and never replaces one of them.
        text = value.pop("content") if name == "extra" and isinstance(value.get("content"), str) else None
        super()._restored(name, value)
        return value if text is None else value | {"content": text}


@_read_from_row("metadata", "status_message", "artifacts", "extra", "status_extra")
@dataclass(frozen=True, init=False)
class Task(LazyRow):
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

    def _restored(self, name: str, value: Any) -> Any:
        if name == "artifacts":
            for chunk in value:
                restore_members(chunk, chunk.pop("member_order", None))
        super()._restored(name, value)
        added = self._order("added_history") if name == "extra" else None
        return value if added is None else _with_history(value, added)


def _with_history(extra: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Return the column ``extra`` of a task with its whole history.

    Args:
        added: ``chunks``, the messages that were added to it one after the other; ``after``, the value of ``extra``
            with the history that they continue, if a later event has replaced it. See ``projections/tasks.sql``.
    """
    base, after = extra, added["after"]
    if after is not None:
        base = after["extra"] or {}
        restore(base, after["order"])
    before = base.get("history")
    history = list(before) if isinstance(before, list) else []
    for chunk in added["chunks"]:
        restore(chunk["messages"], chunk["order"])
        history += chunk["messages"]
    return extra | {"history": history}
