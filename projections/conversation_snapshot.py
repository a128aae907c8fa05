"""Snapshots: a conversation with its messages and tasks as one transaction sees it, at present or in the past.

A conversation as it was is folded from its events by the projections' definitions. These read the relation ``batch``
and write unqualified names of tables. In a transaction that is rolled back, temporary tables have these names: empty
ones like the read tables, and a ``batch`` of the conversation's events up to then. So the result is what the
projections would have made, and no other session sees anything of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Self
from uuid import UUID

from psycopg import sql
from psycopg.rows import TupleRow

from eventstore import Caller, EventStore
from eventstore.database.connection import PROJECTOR, Connection, set_role
from eventstore.database.queries import query, query_without
from eventstore.errors import InputError, NotFound, translated
from eventstore.read import RawRows
from projections.pages import MESSAGES, TASKS, Listing, Row, read_rows
from projections.projection import select_projections
from projections.rows import Conversation, Message, Task

_CONVERSATION = query("projections", "conversation")


@dataclass(frozen=True, slots=True)
class ConversationState:
    """A conversation with all its messages and tasks, in the orders in which the Reader returns them."""

    conversation: Conversation
    messages: tuple[Message, ...]
    tasks: tuple[Task, ...]

    @property
    def version(self) -> int:
        """The conversation's version."""
        return self.conversation.version


class ConversationSnapshot:
    """A conversation in the tables that a connection sees, read in chunks.

    Args:
        connection: in a transaction whose statements all see the same snapshot.

    Attributes:
        conversation: the row of the conversation.
    """

    def __init__(self, connection: Connection, tenant: str, conversation: Conversation) -> None:
        self.conversation = conversation
        self._connection = connection
        self._filters = {"tenant": tenant, "conversation_id": conversation.id}

    @classmethod
    async def open(cls, connection: Connection, tenant: str, conversation_id: UUID) -> Self | None:
        """Return the snapshot of a conversation; None if the tables do not have it."""
        rows = await fetch_rows(connection, _CONVERSATION, {"tenant": tenant, "ids": [conversation_id]})
        return cls(connection, tenant, Conversation.from_row(rows[0])) if rows else None

    async def messages(self) -> AsyncIterator[Message]:
        """Yield the messages up to the version of the conversation's row."""
        async for message in self._rows(MESSAGES):
            if message.version <= self.conversation.version:
                yield message

    def tasks(self) -> AsyncIterator[Task]:
        """Yield the tasks."""
        return self._rows(TASKS)

    async def read(self) -> ConversationState:
        """Return all of it."""
        messages = [message async for message in self.messages()]
        tasks = [task async for task in self.tasks()]
        return ConversationState(self.conversation, tuple(messages), tuple(tasks))

    async def _rows(self, listing: Listing[Row]) -> AsyncIterator[Row]:
        async for rows, _ in read_rows(partial(fetch_rows, self._connection), listing, self._filters):
            for row in rows:
                yield listing.row_type.from_row(row)


async def fetch_rows(connection: Connection, text: str, given: Mapping[str, Any]) -> list[TupleRow]:
    """Return the rows of a statement, JSON as the bytes that came."""
    return await (await RawRows(connection).execute(text.encode(), given)).fetchall()


# A conversation as it was

_PROJECTIONS = select_projections(["conversations", "messages", "tasks"])
_LIMITS = frozenset(("version", "position", "time"))
_VERSIONS = query("projections", "as_of_versions")
_CREATE_BATCH = query("projections", "as_of_batch")
_CREATE_TABLE = sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING GENERATED)")


@asynccontextmanager
async def snapshot_as_of(
    store: EventStore, caller: Caller, candidates: list[UUID], limits: Mapping[str, int | datetime | None]
) -> AsyncIterator[ConversationSnapshot | None]:
    """Open a snapshot of a conversation as it was, until the end of the block.

    Args:
        candidates: the first of them that the caller can see is meant; if there is none, the snapshot is None.
        limits: ``version``, ``position`` and ``time``, of which exactly one is not None.

    Raises:
        InputError: not exactly one of the three is given, or its value is not valid.
        NotFound: the conversation had not begun then, or has not reached that version.
    """
    name, value = _checked_limit(limits)
    # Row-level security decides whether the caller sees it; the projector, which folds it then, sees everything.
    given = {"tenant": caller.tenant, "ids": candidates}
    versions: dict[UUID, int] = dict(await store.log(caller).fetch(_VERSIONS, given))
    found = next((candidate for candidate in candidates if candidate in versions), None)
    if found is None:
        yield None
        return
    if name == "version" and value > versions[found]:
        raise NotFound(f"conversation {found} is at version {versions[found]}: it has no version {value} yet")
    async with await store.connect(PROJECTOR) as connection:
        with translated():
            async with connection.transaction(force_rollback=True):
                await set_role(connection, store.settings, PROJECTOR)  # a pooler may lend another session
                await connection.execute(_CREATE_BATCH)
                for table in (table for projection in _PROJECTIONS for table in projection.tables):
                    original = sql.Identifier(store.settings.db_schema, table)
                    await connection.execute(_CREATE_TABLE.format(sql.Identifier(table), original))
                text = query_without("projections", "as_of_events", _LIMITS - {name})
                parameters = {"tenant": caller.tenant, "conversation_id": found, name: value}
                if (await connection.execute(text.encode(), parameters)).rowcount == 0:
                    raise NotFound(f"conversation {found} had not begun at {name} {value}")
                for projection in _PROJECTIONS:
                    await projection.fold(connection)
                snapshot = await ConversationSnapshot.open(connection, caller.tenant, found)
                assert snapshot is not None
                yield snapshot


def _checked_limit(limits: Mapping[str, Any]) -> tuple[str, Any]:
    given = [(name, value) for name, value in limits.items() if value is not None]
    if len(given) != 1:
        raise InputError("version, position, time: give exactly one of them")
    [(name, value)] = given
    if name == "time":
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise InputError(f"time: {value!r} is not a datetime with a time zone")
    elif not isinstance(value, int) or not 0 <= value < (2**31 if name == "version" else 2**63):
        raise InputError(f"{name}: {value!r} is not a {name}: give a number from 1")
    return name, value
