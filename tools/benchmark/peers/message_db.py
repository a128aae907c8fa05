"""``message-db``: SQL functions, installed from a folder of its files and called by psycopg.

The name of its schema is fixed, so it is measured only in a database of the benchmark's own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from eventstore.database.connection import Connection
from tools.benchmark.bare_insert import SharedConnections
from tools.benchmark.messages import Message
from tools.benchmark.peers import Peer, PeerMissing
from tools.benchmark.workspace import Workspace

FOLDER = "EVENTSTORE_BENCH_MESSAGE_DB"
"""The variable that names the folder ``database`` of message-db, for example of the npm package
``@eventide/message-db``."""
_SCHEMA = "message_store"
# The functions need neither roles and grants nor the extension pgcrypto, whose function is built in by now.
_PARTS = ("schema", "tables", "types", "functions", "indexes")
_WRITE = "SELECT message_store.write_message(%s, %s, 'MessageAdded', %s, %s)"


class MessageDb(Peer):
    """The functions, and connections that the callers share."""

    stored = "SELECT count(*) FROM message_store.messages"

    def __init__(self) -> None:
        self._connections: list[Connection] = []

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        folder = Path(os.environ.get(FOLDER, ""))
        if not (folder / "functions").is_dir():
            raise PeerMissing(
                f"set {FOLDER} to its folder of SQL files: 'database' in the npm package @eventide/message-db"
            )
        if not workspace.own_database:
            raise PeerMissing(f"its schema is always {_SCHEMA}: use a login that may create databases")
        while len(self._connections) < connections:
            self._connections.append(await workspace.connect(_SCHEMA))
        for part in _PARTS:
            for file in sorted((folder / part).glob("*.sql")):
                await self._connections[0].execute(file.read_bytes())
        self._shared = SharedConnections(self._connections)

    def prepare(self, message: Message) -> tuple[str, str, dict[str, Any]]:
        return str(message.id), f"conversation-{message.conversation_id}", message.content()

    async def append(self, given: tuple[str, str, dict[str, Any]]) -> None:
        message_id, stream, data = given
        async with self._shared.one() as connection:
            cursor = await connection.execute(_WRITE, (message_id, stream, Jsonb(data), Jsonb({})), prepare=True)
            await cursor.fetchall()

    async def close(self) -> None:
        if self._connections:
            drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(_SCHEMA))
            await self._connections[0].execute(drop)
        for connection in self._connections:
            await connection.close()


peer = MessageDb
