"""A conversation with its messages and tasks as one transaction sees them, read a stretch of rows at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from psycopg.rows import TupleRow

from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.read import RawRows
from projections.pages import MESSAGES, TASKS, Listing, Row, stretches
from projections.rows import Conversation, Message, Task

_CONVERSATION = query("projections", "conversation")


@dataclass(frozen=True, slots=True)
class ConversationState:
    """A conversation with all its messages and tasks, in the orders in which the Reader gives them."""

    conversation: Conversation
    messages: tuple[Message, ...]
    tasks: tuple[Task, ...]

    @property
    def version(self) -> int:
        """The conversation's version."""
        return self.conversation.version


class ConversationSnapshot:
    """What the tables that a connection sees hold of a conversation.

    Args:
        connection: in a transaction whose statements all see the same.

    Attributes:
        conversation: the row of the conversation.
    """

    def __init__(self, connection: Connection, tenant: str, conversation: Conversation) -> None:
        self.conversation = conversation
        self._connection = connection
        self._given = {"tenant": tenant, "conversation_id": conversation.id}

    @classmethod
    async def open(cls, connection: Connection, tenant: str, conversation_id: UUID) -> Self | None:
        """Return the snapshot of a conversation; None if the tables do not have it."""
        rows = await fetch_rows(connection, _CONVERSATION, {"tenant": tenant, "ids": [conversation_id]})
        return cls(connection, tenant, Conversation.from_row(rows[0])) if rows else None

    async def messages(self) -> AsyncIterator[Message]:
        """The messages up to the version of the conversation's row."""
        async for message in self._rows(MESSAGES):
            if message.version <= self.conversation.version:
                yield message

    def tasks(self) -> AsyncIterator[Task]:
        """The tasks."""
        return self._rows(TASKS)

    async def read(self) -> ConversationState:
        """Return all of it."""
        messages = [message async for message in self.messages()]
        tasks = [task async for task in self.tasks()]
        return ConversationState(self.conversation, tuple(messages), tuple(tasks))

    async def _rows(self, listing: Listing[Row]) -> AsyncIterator[Row]:
        async def fetch(text: str, given: dict[str, Any]) -> list[TupleRow]:
            return await fetch_rows(self._connection, text, given)

        async for stretch in stretches(fetch, listing, self._given):
            for row in stretch:
                yield listing.make(row)


async def fetch_rows(connection: Connection, text: str, given: Mapping[str, Any]) -> list[TupleRow]:
    """Return the rows of a statement, JSON as the bytes that came."""
    return await (await RawRows(connection).execute(text.encode(), given)).fetchall()
