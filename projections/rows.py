"""Rows of the read tables as typed objects."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from typing import Any
from uuid import UUID

from eventstore.json_text import from_json
from eventstore.lazy_row import LazyRow, lazy_row
from eventstore.member_order import restore, restore_members
from eventstore.message_format import sent_from_row

ERASED_MARK = "eventstore.erased"
"""The member of the metadata of a row whose content was erased; see the SQL function ``erased_content``."""


class ReadTableRow(LazyRow):
    """A row of a read table.

    A row that was read has one more value: the order of the members in its JSON columns
    (:mod:`eventstore.member_order`).
    """

    metadata: dict[str, Any] | None

    @property
    def is_erased(self) -> bool:
        """True if the content of the event that it begins with was erased."""
        return bool((self.metadata or {}).get(ERASED_MARK))

    @property
    def size(self) -> int:
        """Characters and bytes of its values, as they were read."""
        return sum(len(value) for value in self._row if isinstance(value, str | bytes))

    @property
    def digest(self) -> bytes:
        """A digest of its values, as they were read."""
        values = self._row[: len(fields(type(self))) + 1]
        return blake2b(repr(values).encode(errors="surrogatepass"), digest_size=16).digest()

    def _restored(self, name: str, value: Any) -> Any:
        """Return the value of a JSON column with its members in the order in which they were sent."""
        restore(value, self._order(name))
        return value

    def _order(self, name: str) -> Any:
        """Return what is stored of the order of the members in a column."""
        return self._orders.get(name) if isinstance(self._orders, dict) else None

    @cached_property
    def _orders(self) -> Any:
        index = len(fields(type(self)))
        orders = self._row[index] if len(self._row) > index else None
        return from_json(orders[1:]) if isinstance(orders, bytes) else orders


@lazy_row("metadata", "forked_from")
@dataclass(frozen=True, init=False)
class Conversation(ReadTableRow):
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


@lazy_row("parts", "metadata", "extra")
@dataclass(frozen=True, init=False)
class Message(ReadTableRow):
    """A row of the table ``messages``.

    ``status`` is that of its answer: ``pending``, ``answered``, ``failed`` or ``abandoned``; None if it awaits none.
    ``error`` says why an answer failed or was abandoned, or what was not stored of it.
    """

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
    status: str | None
    error: str | None

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


@lazy_row("metadata", "status_message", "artifacts", "extra", "status_extra")
@dataclass(frozen=True, init=False)
class Task(ReadTableRow):
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
