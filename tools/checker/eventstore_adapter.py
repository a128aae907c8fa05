"""The adapter of this store: :class:`eventstore.EventStore` and the SQL function ``append_events``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.errors import FeatureNotSupported
from psycopg.types.json import Jsonb

from eventstore import Append, ApplicationEvent, EventStore, NewEvent, Settings
from eventstore.database.connection import PROJECTOR, Connection
from eventstore.database.migrate import Migrator
from eventstore.database.queries import query
from eventstore.errors import (
    ConflictError,
    ConnectionLost,
    DiskFull,
    EventStoreError,
    InputError,
    RetryableError,
    ServerUnreachable,
    WrongExpectedVersion,
    translate,
)
from tools.checker.adapter import (
    Ability,
    AppendedEvent,
    Batch,
    OutcomeUnknown,
    ReadEvent,
    Refused,
    Write,
    WrongVersion,
    content_of,
)

EVENT_TYPE = "check.noted"
_CONNECT_SECONDS = 2
_BATCH_EVENTS = 500
_NAIVE_POLL_SECONDS = 0.005
_BATCH = query("tools.checker", "batch")

_NOTHING_WRITTEN = (ConflictError, InputError, RetryableError, DiskFull)
# ServerUnreachable means that nothing was sent; the checker then waits for the server and repeats the append.
_UNKNOWN = (ConnectionLost, ServerUnreachable)
_CONFLICTS = {"ES001": WrongVersion, "ES002": Refused}
"""SQLSTATEs of ``append_events`` for conflicts with the log, which only a caller that knows the append can type."""


@contextmanager
def adapter_errors() -> Iterator[None]:
    """Turn the store's documented errors into :class:`Refused` or :class:`OutcomeUnknown`; let others pass."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate in _CONFLICTS:
            raise _CONFLICTS[error.sqlstate](str(error)) from error
        raise _adapter_error(translate(error)) from error
    except EventStoreError as error:
        raise _adapter_error(error) from error


def _adapter_error(error: EventStoreError) -> Exception:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, WrongExpectedVersion):
        return WrongVersion(text)
    if isinstance(error, _NOTHING_WRITTEN):
        return Refused(text)
    return OutcomeUnknown(text) if isinstance(error, _UNKNOWN) else error


class _Adapter:
    """An :class:`EventStore` on the schema of the check."""

    def __init__(self, url: str, schema: str) -> None:
        self.settings = Settings(
            _env_file=None, database_url=url, db_schema=schema, connect_timeout=_CONNECT_SECONDS, pool_size=6
        )
        self.store = EventStore(self.settings)

    async def open(self) -> None:
        """Connect."""
        with adapter_errors():
            await self.store.open()

    async def close(self) -> None:
        """Disconnect."""
        await self.store.close()


class EventStoreLog(_Adapter):
    """The store that writers append to."""

    abilities = frozenset(Ability)

    async def create(self) -> None:
        """Apply the migrations."""
        await asyncio.to_thread(Migrator(self.settings.server_url() or "", self.settings).up)

    async def append(self, writes: Sequence[Write]) -> Sequence[AppendedEvent]:
        """Append by ``append`` for one conversation, and by ``append_all`` for several."""
        appends = [
            Append(
                write.conversation,
                [NewEvent(ApplicationEvent(EVENT_TYPE, event.content), event.id) for event in write.events],
                write.expected,
            )
            for write in writes
        ]
        tenant = writes[0].tenant
        with adapter_errors():
            if len(appends) == 1:
                (one,) = appends
                result = await self.store.append(one.conversation_id, one.events, expected=one.expected, tenant=tenant)
            else:
                result = await self.store.append_all(appends, tenant=tenant)
        return [AppendedEvent(event.position, event.version) for event in result.events]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[EventStoreTransaction]:
        """Begin a transaction on a connection of its own, to call the function ``append_events`` in."""
        with adapter_errors():
            connection = await self.store.connect()
        async with connection:
            await connection.set_autocommit(False)
            try:
                yield EventStoreTransaction(connection)
            finally:
                await connection.close()  # rolls back an unfinished transaction

    async def log(self) -> AsyncGenerator[ReadEvent, None]:
        """Yield the log by a plain SELECT, without the gate: there are no writers."""
        async with (
            await self.store.connect(PROJECTOR) as connection,
            connection.transaction(),
            connection.cursor("check_log") as cursor,
        ):
            await cursor.execute(query("tools.checker", "log"))
            while rows := await cursor.fetchmany(2000):
                for row in rows:
                    yield _read_event(*row)


class EventStoreTransaction:
    """A transaction of the caller's own. The connection begins it with the first statement."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, write: Write) -> Sequence[AppendedEvent]:
        """Call ``append_events``."""
        versions = {"NO_STREAM": 0, "EXISTS": -1, "ANY": -2}
        parameters = {
            "tenant": write.tenant,
            "conversation": write.conversation,
            "expected": versions.get(str(write.expected), write.expected),
            "count": len(write.events),
            "ids": [event.id for event in write.events],
            "event_type": EVENT_TYPE,
            "contents": [Jsonb(event.content) for event in write.events],
        }
        with adapter_errors():
            cursor = await self._connection.execute(query("tools.checker", "append"), parameters)
            return [AppendedEvent(*row) for row in await cursor.fetchall()]

    async def savepoint(self) -> None:
        """Set a savepoint."""
        await self._execute("SAVEPOINT here")

    async def roll_back_to_savepoint(self) -> None:
        """Roll back to the savepoint."""
        await self._execute("ROLLBACK TO SAVEPOINT here")

    async def commit(self) -> None:
        """Commit; the server answers ROLLBACK if the transaction has failed."""
        await self._execute("COMMIT", answer="COMMIT")

    async def roll_back(self) -> None:
        """Roll back."""
        await self._execute("ROLLBACK")

    async def prepare(self, name: str) -> None:
        """Prepare the transaction."""
        await self._execute(sql.SQL("PREPARE TRANSACTION {}").format(name), answer="PREPARE TRANSACTION")

    async def finish_prepared(self, name: str, *, commit: bool) -> None:
        """Commit or roll back a prepared transaction, outside any transaction."""
        with adapter_errors():
            await self._connection.set_autocommit(True)
        await self._execute(sql.SQL("COMMIT PREPARED {}" if commit else "ROLLBACK PREPARED {}").format(name))

    async def _execute(self, statement: LiteralString | sql.Composed, answer: str | None = None) -> None:
        with adapter_errors():
            try:
                cursor = await self._connection.execute(statement)
            except FeatureNotSupported as error:
                # PostgreSQL prepares no transaction that has notified, and an append notifies if a reader waits.
                raise Refused(str(error)) from error
        if answer is not None and cursor.statusmessage != answer:
            raise Refused(f"the server answered {cursor.statusmessage}")


class HorizonReader(_Adapter):
    """The store's own subscription, and batches up to the horizon for a checkpoint in the same database."""

    async def subscribe(self, after: int, tenant: str | None) -> AsyncGenerator[ReadEvent, None]:
        """Yield events by ``EventStore.subscribe``."""
        with adapter_errors():
            async for event in self.store.subscribe(after=after, tenant=tenant, all_tenants=tenant is None):
                yield _read_event(
                    event.position, event.tenant_id, event.conversation_id, event.version, event.id, event.content
                )

    async def batches(self, after: int) -> AsyncGenerator[Batch, None]:
        """Yield batches up to the horizon: a checkpoint in the same database may go there, event or not."""
        with adapter_errors():
            async with await self.store.connect(PROJECTOR) as connection:
                while True:
                    row = await (await connection.execute("SELECT log_horizon()")).fetchone()
                    assert row is not None
                    horizon = int(row[0])
                    events = await _read_batch(connection, after, horizon)
                    after = max(after, horizon if len(events) < _BATCH_EVENTS else events[-1].position)
                    yield events, after
                    if not events:
                        await self.store.wait(after)


class NaiveReader(_Adapter):
    """A reader that is wrong on purpose: it reads by position alone, without the horizon.

    It checks the checker: ``--reader tools.checker.eventstore_adapter:NaiveReader`` must find what this reader misses.
    """

    async def subscribe(self, after: int, tenant: str | None) -> AsyncGenerator[ReadEvent, None]:
        """Yield the events after the highest position seen."""
        async for events, _ in self.batches(after):
            for event in events:
                if tenant in (None, event.tenant):
                    yield event

    async def batches(self, after: int) -> AsyncGenerator[Batch, None]:
        """Yield batches, and the highest position seen as checkpoint."""
        with adapter_errors():
            async with await self.store.connect(PROJECTOR) as connection:
                while True:
                    if events := await _read_batch(connection, after, 2**63 - 1):
                        after = events[-1].position
                        yield events, after
                    else:
                        await asyncio.sleep(_NAIVE_POLL_SECONDS)


async def _read_batch(connection: Connection, after: int, last: int) -> list[ReadEvent]:
    cursor = await connection.execute(_BATCH, {"after": after, "last": last, "limit": _BATCH_EVENTS})
    return [_read_event(*row) for row in await cursor.fetchall()]


def _read_event(position: int, tenant: str, conversation: Any, version: int, event_id: Any, content: Any) -> ReadEvent:
    return ReadEvent(position, tenant, conversation, version, event_id, content == content_of(event_id))
