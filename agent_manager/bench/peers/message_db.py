"""``message-db``: functions in SQL, installed from a folder of its files, called by the driver that we use.

Its schema has a fixed name, so it is measured only in a database of the benchmark's own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from agent_manager.bench.bare import SharedConnections
from agent_manager.bench.messages import Message
from agent_manager.bench.peers.base import PeerMissing
from agent_manager.bench.place import Place
from agent_manager.bench.rates import drive
from eventstore.database.connection import Connection

FOLDER = "EVENTSTORE_BENCH_MESSAGE_DB"
"""The variable that names the folder ``database`` of message-db, such as that of the npm package
``@eventide/message-db``."""
_SCHEMA = "message_store"
# What the functions need; roles and grants are not, nor is the extension pgcrypto, whose function is built in by now.
_PARTS = ("schema", "tables", "types", "functions", "indexes")
_WRITE = "SELECT message_store.write_message(%s, %s, 'MessageAdded', %s, %s)"


class MessageDb:
    """The functions, and connections that the callers share."""

    def __init__(self) -> None:
        self._opened: list[Connection] = []

    async def open(self, place: Place, schema: str, connections: int) -> None:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        folder = Path(os.environ.get(FOLDER, ""))
        if not (folder / "functions").is_dir():
            raise PeerMissing(
                f"set {FOLDER} to its folder of SQL files: 'database' in the npm package @eventide/message-db"
            )
        if not place.own_database:
            raise PeerMissing(f"its schema is always {_SCHEMA}: let the login make databases")
        while len(self._opened) < connections:
            self._opened.append(await place.connect(_SCHEMA))
        for part in _PARTS:
            for file in sorted((folder / part).glob("*.sql")):
                await self._opened[0].execute(file.read_bytes())
        self._shared = SharedConnections(self._opened)

    async def begin(self, messages: Sequence[Message]) -> None:
        """Nothing: a stream begins with its first message."""

    def prepared(self, message: Message) -> tuple[str, str, dict[str, Any]]:
        """Id, stream and data."""
        return str(message.id), f"conversation-{message.conversation_id}", message.content()

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        return await drive(plan, self._append, seconds)

    async def _append(self, _: int, given: tuple[str, str, dict[str, Any]]) -> None:
        message_id, stream, data = given
        async with self._shared.one() as connection:
            cursor = await connection.execute(_WRITE, (message_id, stream, Jsonb(data), Jsonb({})), prepare=True)
            await cursor.fetchall()

    async def close(self) -> None:
        """Drops its schema and closes the connections."""
        if self._opened:
            await self._opened[0].execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(_SCHEMA)))
        for connection in self._opened:
            await connection.close()


make = MessageDb
