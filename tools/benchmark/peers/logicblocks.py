"""``logicblocks-event-store``: its PostgreSQL adapter, which by default lets one writer at a time into the log.

The releases for Python before 3.13 have no such adapter. Its users create its tables.
"""

from __future__ import annotations

import logging
from typing import Any

from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool

from eventstore.database.queries import query
from tools.benchmark.messages import Message
from tools.benchmark.peers import Peer, PeerMissing
from tools.benchmark.workspace import Workspace

try:
    from logicblocks.event.store import EventStore, PostgresEventStorageAdapter
    from logicblocks.event.types import NewEvent
except ModuleNotFoundError:
    raise
except ImportError as error:
    raise PeerMissing("the releases for Python before 3.13 have no PostgreSQL adapter") from error

import structlog

_CATEGORY = "conversation"


class Logicblocks(Peer):
    """The event store on a pool."""

    stored = "SELECT count(*) FROM events"

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            workspace.url,
            min_size=connections,
            max_size=connections,
            open=False,
            kwargs={"options": f"-c search_path={schema}"},
        )
        await self._pool.open(wait=True)
        async with self._pool.connection() as connection:
            await connection.execute(sql.SQL(query("tools.benchmark", "logicblocks_tables")))
        self._store = EventStore(PostgresEventStorageAdapter(connection_source=self._pool))

    def prepare(self, message: Message) -> tuple[Any, list[Any]]:
        payload = {"role": message.role, "actor": message.actor, "content": message.text}
        stream = self._store.stream(category=_CATEGORY, stream=str(message.conversation_id))
        return stream, [NewEvent(name="message-added", payload=payload)]

    async def append(self, given: tuple[Any, list[Any]]) -> None:
        stream, events = given
        await stream.publish(events=events)

    async def close(self) -> None:
        await self._pool.close()


peer = Logicblocks
