"""This store as the checker uses it: through :class:`eventstore.EventStore`, as any application does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from eventstore.append import Append
from eventstore.check.adapter import Ability, Batch, Place, Seen, Write, content_of
from eventstore.check.outcomes import told_apart
from eventstore.check.transaction import EVENT_TYPE, OwnTransaction
from eventstore.database.connection import PROJECTOR
from eventstore.database.migrate import Migrator
from eventstore.database.queries import query
from eventstore.database.settings import Settings
from eventstore.events import Event, NewEvent
from eventstore.store import EventStore
from eventstore.vocabulary import ApplicationEvent

CONNECT_SECONDS = 2

_LOG = query("eventstore.check", "log")
_BATCH = query("eventstore.check", "batch")
_BATCH_EVENTS = 500


class Opened:
    """An :class:`EventStore` on the schema of the check."""

    def __init__(self, url: str, schema: str) -> None:
        self.settings = Settings(
            _env_file=None, database_url=url, db_schema=schema, connect_timeout=CONNECT_SECONDS, pool_size=6
        )
        self.store = EventStore(self.settings)

    async def open(self) -> None:
        """Connects."""
        with told_apart():
            await self.store.open()

    async def close(self) -> None:
        """Disconnects."""
        await self.store.close()


class Log(Opened):
    """The store that writers append to."""

    abilities = frozenset(Ability)

    async def create(self) -> None:
        """Applies the migrations."""
        await asyncio.to_thread(Migrator(self.settings.server_url() or "", self.settings).up)

    async def append(self, writes: Sequence[Write]) -> Sequence[Place]:
        """Appends, by ``append`` where it is to one conversation."""
        given = [Append(write.conversation, _new_events(write), write.expected) for write in writes]
        with told_apart():
            if len(given) == 1:
                (one,) = given
                result = await self.store.append(
                    one.conversation_id, one.events, expected=one.expected, tenant=writes[0].tenant
                )
            else:
                result = await self.store.append_all(given, tenant=writes[0].tenant)
        return [Place(event.position, event.version) for event in result.events]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[OwnTransaction]:
        """One on a connection of its own, in which the function ``append_events`` is called."""
        with told_apart():
            connection = await self.store.connect()
        async with connection:
            await connection.set_autocommit(False)
            try:
                yield OwnTransaction(connection)
            finally:
                await connection.close()  # rolls back what is left open

    async def log(self) -> AsyncGenerator[Seen, None]:
        """By a plain SELECT, without the gate: at rest there is nothing to wait for."""
        async with await self.store.connect(PROJECTOR) as connection, connection.transaction():
            cursor = connection.cursor("check_log")
            async with cursor:
                await cursor.execute(_LOG)
                while rows := await cursor.fetchmany(2000):
                    for row in rows:
                        yield seen(*row)


class Gated(Opened):
    """The reader: the store's own subscription, and the gate in plain SQL for a checkpoint in the same database."""

    async def subscribe(self, after: int, tenant: str | None) -> AsyncGenerator[Seen, None]:
        """``EventStore.subscribe``."""
        with told_apart():
            async for event in self.store.subscribe(after=after, tenant=tenant, all_tenants=tenant is None):
                yield _seen(event)

    async def batches(self, after: int) -> AsyncGenerator[Batch, None]:
        """Up to the horizon: a checkpoint in the same database may go there, event or not."""
        with told_apart():
            async with await self.store.connect(PROJECTOR) as connection:
                while True:
                    horizon = await _value(connection, "SELECT log_horizon()")
                    rows = await (
                        await connection.execute(_BATCH, {"after": after, "last": horizon, "limit": _BATCH_EVENTS})
                    ).fetchall()
                    after = max(after, horizon if len(rows) < _BATCH_EVENTS else rows[-1][0])
                    yield [seen(*row) for row in rows], after
                    if not rows:
                        await self.store.wait(after)


def seen(position: int, tenant: str, conversation: Any, version: int, event_id: Any, content: Any) -> Seen:
    """A row of the log."""
    return Seen(position, tenant, conversation, version, event_id, content == content_of(event_id))


def _seen(event: Event) -> Seen:
    return seen(event.position, event.tenant_id, event.conversation_id, event.version, event.id, event.content)


def _new_events(write: Write) -> list[NewEvent]:
    return [NewEvent(ApplicationEvent(EVENT_TYPE, event.content), event.id) for event in write.events]


async def _value(connection: Any, text: str) -> int:
    return int((await (await connection.execute(text)).fetchone())[0])
