"""``logicblocks-event-store``: its PostgreSQL adapter, which by default lets one writer at a time into the log.

The releases for Python before 3.13 have no such adapter. Its tables are for the user to make.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection, sql
from psycopg_pool import AsyncConnectionPool

from agent_manager.bench.messages import Message
from agent_manager.bench.peers.base import PeerMissing
from agent_manager.bench.place import Place
from agent_manager.bench.rates import drive
from eventstore.database.queries import query

try:
    from logicblocks.event.store import EventStore, PostgresEventStorageAdapter
    from logicblocks.event.types import NewEvent
except ModuleNotFoundError:
    raise
except ImportError as error:
    raise PeerMissing("the releases for Python before 3.13 have no PostgreSQL adapter") from error

import structlog

_CATEGORY = "conversation"


class Logicblocks:
    """The event store on a pool."""

    async def open(self, place: Place, schema: str, connections: int) -> None:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            place.url,
            min_size=connections,
            max_size=connections,
            open=False,
            kwargs={"options": f"-c search_path={schema}"},
        )
        await self._pool.open(wait=True)
        async with self._pool.connection() as connection:
            await connection.execute(sql.SQL(query("agent_manager.bench", "logicblocks_tables")))
        self._store = EventStore(PostgresEventStorageAdapter(connection_source=self._pool))

    async def begin(self, messages: Sequence[Message]) -> None:
        """Nothing: a stream begins with its first event."""

    def prepared(self, message: Message) -> tuple[Any, list[Any]]:
        """An event of its own, and the stream it goes into."""
        payload = {"role": message.role, "actor": message.actor, "content": message.text}
        stream = self._store.stream(category=_CATEGORY, stream=str(message.conversation_id))
        return stream, [NewEvent(name="message-added", payload=payload)]

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        return await drive(plan, self._append, seconds)

    async def _append(self, _: int, given: tuple[Any, list[Any]]) -> None:
        stream, events = given
        await stream.publish(events=events)

    async def close(self) -> None:
        """Closes the pool."""
        await self._pool.close()


make = Logicblocks
