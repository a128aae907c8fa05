"""The limit: the same rows inserted by the same driver into a table with the same columns and indexes, and no more.

What the store's function finds out for itself (version, salt, digest) is computed beforehand and sent along.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int4

from agent_manager.bench.messages import Message
from eventstore.database.connection import Connection
from eventstore.database.queries import query

_INSERT = query("agent_manager.bench", "bare_insert")
_INSERT_MANY = query("agent_manager.bench", "bare_insert_many")

Row = tuple[Message, dict[str, Any]]


def row(message: Message) -> Row:
    """A message and its content as a dict: to encode that is part of the insert."""
    return message, message.content()


class OwnConnections:
    """Each caller has a connection."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    async def append(self, caller: int, given: Row) -> None:
        """Inserts one row and commits."""
        await insert(self._connections[caller], given)


class SharedConnections:
    """More callers than connections: who finds none free waits for one, in turn."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for connection in connections:
            self._free.put_nowait(connection)

    async def append(self, _: int, given: Row) -> None:
        """Inserts one row and commits."""
        async with self.one() as connection:
            await insert(connection, given)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """Lends a connection."""
        connection = await self._free.get()
        try:
            yield connection
        finally:
            self._free.put_nowait(connection)


async def insert(connection: Connection, given: Row) -> None:
    """One prepared statement, one row, one commit."""
    message, content = given
    await connection.execute(
        _INSERT,
        (
            Int4(message.version), message.conversation_id, message.id, message.actor,
            Jsonb(content), Jsonb({}), message.salt, message.digest,
        ),
        prepare=True,
    )  # fmt: skip


async def insert_many(connection: Connection, rows: Sequence[Row]) -> None:
    """All rows by one statement, from binary arrays."""
    await connection.execute(
        _INSERT_MANY,
        (
            [Int4(message.version) for message, _ in rows],
            [message.conversation_id for message, _ in rows],
            [message.id for message, _ in rows],
            [message.actor for message, _ in rows],
            [Jsonb(content) for _, content in rows],
            [Jsonb({})] * len(rows),
            [message.salt for message, _ in rows],
            [message.digest for message, _ in rows],
        ),
        prepare=True,
    )
