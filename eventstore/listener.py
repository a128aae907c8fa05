"""The connection that listens for notifications of new events, and queries them.

It may go to another address than all others (``EVENTSTORE_LISTEN_URL``), because a pooler in transaction mode drops
notifications; whether they arrive is tested when it is opened. Every reply on it has a deadline, so that a peer that
vanished is noticed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult

from eventstore.database.binary_format import INT4, INT8, TEXT, int4, int8, to_int8
from eventstore.database.connection import AUDITOR, PROJECTOR, Connection
from eventstore.database.pipelined_connection import PipelinedConnection, Statement
from eventstore.database.pools import Pool
from eventstore.database.queries import query
from eventstore.errors import (
    ConnectionLost,
    EventStoreError,
    RetryableError,
    ServerUnreachable,
    SettingsError,
    translate,
    translated,
)
from eventstore.events import CONTENT, HIGHEST_POSITION, Event
from eventstore.metrics import StoreMetrics
from eventstore.read import RawRows
from eventstore.scope import ALL_TENANTS, DataScope

REPLY_SECONDS = 2.5
"""The time without a reply after which the connection is closed."""
IDLE_SECONDS = 30.0
"""A listening session that is idle for longer has lost its client, and is ended by the server. It is six times
:data:`eventstore.notifier.POLL_SECONDS`, at which the connection is used at least."""
HIGHEST_QUEUE_USAGE = 0.5
"""The limit on notification queue usage. Above it, appends do not notify (``register_append``), and consumers poll
instead of listening: a new listener would first read the whole queue."""


def _statement(name: str, *types: int) -> Statement:
    return Statement(f"eventstore_{name}".encode(), query("eventstore", name).encode(), types)


_LISTEN = query("eventstore", "listen")
_LOOK = _statement("look", INT8, INT4)
_HORIZON = _statement("horizon")
_BEGIN_WAIT = _statement("begin_wait", INT8)
_END_WAIT = _statement("end_wait")
_SET_SCOPE = _statement("set_scope", TEXT, TEXT, TEXT)

Found: TypeAlias = tuple[int, Event | None]
"""The position of an event, and the event if the scope of the connection contains it."""


class Listener:
    """A connection that listens, and runs one statement at a time. ``LISTEN`` was committed on it.

    Attributes:
        scope: the scope of the events that it returns; None returns none.
    """

    def __init__(self, connection: Connection, on_notified: Callable[[], None], metrics: StoreMetrics) -> None:
        def count() -> None:
            metrics.notifications += 1
            on_notified()

        self._pipeline = PipelinedConnection(connection, lambda _: on_notified(), count)
        self._loader = Transformer(RawRows(connection))
        self._has_loaders = False
        self._loop = asyncio.get_running_loop()
        self.scope: DataScope | None = None

    async def prepare(self) -> None:
        """Prepare the statements. If that fails, the connection is closed."""
        await self._pipeline.prepare((_LOOK, _HORIZON, _BEGIN_WAIT, _END_WAIT, _SET_SCOPE))

    def look(self, after: int, limit: int, on_found: Callable[[list[Found]], None]) -> asyncio.Future[list[Found]]:
        """Send a query for the first events after a position, final or not.

        Args:
            on_found: called with the events as soon as they arrive, before any other task runs.
        """

        def read(result: PGresult) -> list[Found]:
            self._loader.set_pgresult(result, set_loaders=not self._has_loaders)
            self._has_loaders = True
            rows = self._loader.load_rows(0, result.ntuples, tuple)
            found = [(row[0], None if row[CONTENT] is None else Event.from_row(row)) for row in rows]
            on_found(found)
            return found

        return self._execute(_LOOK, [int8(after), int4(limit)], read)

    async def set_scope(self, scope: DataScope | None) -> None:
        """Set the scope of the events that are returned from now on."""
        if scope == self.scope:
            return
        tenant, user, role = "", "", AUDITOR
        if scope is ALL_TENANTS:
            role = PROJECTOR
        elif scope is not None:
            tenant, user = scope.tenant, scope.user or ""
        self.scope = None  # until the server has answered
        await self._execute(_SET_SCOPE, [tenant.encode(), user.encode(), role.encode()], _ignore)
        self.scope = scope

    async def horizon(self) -> int:
        """Return the position up to which the log is final."""
        return int(await self._execute(_HORIZON, [], lambda result: to_int8(result.get_value(0, 0) or b"")))

    async def begin_wait(self, seen: int) -> bool:
        """Begin to wait; return whether every append notifies from now on, and no event is after ``seen``."""
        return bool(await self._execute(_BEGIN_WAIT, [int8(seen)], lambda result: result.get_value(0, 0) == b"\x01"))

    async def end_wait(self) -> None:
        """End a wait, if there is one: appends need not notify any more."""
        await self._execute(_END_WAIT, [], _ignore)

    async def check(self) -> None:
        """Make a round trip, which fails if the connection is dead."""
        await self.look(HIGHEST_POSITION, 1, lambda found: None)

    def close(self) -> None:
        """Close the connection."""
        self._pipeline.close()

    def _execute(
        self, statement: Statement, parameters: Sequence[bytes], read: Callable[[PGresult], Any]
    ) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._pipeline.is_broken:
            answer.set_exception(ConnectionLost("the listening connection was lost"))
            return answer

        def on_result(result: PGresult | psycopg.Error) -> None:
            if answer.done():
                return
            if isinstance(result, psycopg.Error):
                answer.set_exception(translate(result))
            else:
                answer.set_result(read(result))

        self._pipeline.send(statement, parameters, on_result)
        deadline = self._loop.call_later(REPLY_SECONDS, self._pipeline.close)

        def on_done(answer: asyncio.Future[Any]) -> None:
            deadline.cancel()
            if not answer.cancelled():
                answer.exception()  # mark it as retrieved: the caller may have been cancelled

        answer.add_done_callback(on_done)
        return answer


def _ignore(result: PGresult) -> None:
    pass


async def open_listener(
    connect: Callable[[], Awaitable[Connection]],
    pool: Pool,
    on_notified: Callable[[], None],
    seconds: float,
    metrics: StoreMetrics,
) -> Listener:
    """Open a listening connection, and try that notifications of the store's other connections arrive on it.

    Args:
        connect: opens a connection to the address of listening connections.
        pool: the store's other connections.
        seconds: how long connecting may take.
        metrics: counts the notifications.
    """
    try:
        async with asyncio.timeout(seconds + REPLY_SECONDS):
            connection = await connect()
            try:
                with translated():
                    await _try_notification(connection, pool)
                    row = await (await connection.execute(_LISTEN, {"idle": str(int(IDLE_SECONDS * 1000))})).fetchone()
                    assert row is not None
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(row[0])))
                    listener = Listener(connection, on_notified, metrics)
                    await listener.prepare()
            except BaseException:
                await connection.close()
                raise
            return listener
    except TimeoutError:
        raise ServerUnreachable(
            f"no listening connection could be opened within {seconds} seconds: the server, or something before it, "
            "does not answer"
        ) from None


async def _try_notification(connection: Connection, pool: Pool) -> None:
    [(usage,)] = await pool.fetch("SELECT pg_notification_queue_usage()")
    if usage >= HIGHEST_QUEUE_USAGE:
        raise RetryableError(
            f"the server's queue of notifications is {usage:.0%} full: consumers poll until it has drained"
        )
    name = f"eventstore_trial_{secrets.token_hex(8)}"
    channel = sql.Identifier(name)
    await connection.execute(sql.SQL("LISTEN {}").format(channel))
    await pool.fetch("SELECT pg_notify(%s, '')", [name])
    notified = [notify async for notify in connection.notifies(timeout=REPLY_SECONDS, stop_after=1)]
    if not notified:
        raise await _error_without_notification(connection, pool)
    await connection.execute(sql.SQL("UNLISTEN {}").format(channel))


async def _error_without_notification(connection: Connection, pool: Pool) -> EventStoreError:
    """Return why notifications do not arrive: a lock conflicts only if both connections use the same database."""
    key = secrets.randbits(63)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [key])
        [(is_free,)] = await pool.fetch("SELECT pg_try_advisory_xact_lock(%s)", [key])
    if is_free:
        return SettingsError(
            "EVENTSTORE_LISTEN_URL: leads to another database than the store's: "
            "name the same database of the same server"
        )
    return ConnectionLost(
        "notifications do not come through, perhaps because of a pooler: "
        "let EVENTSTORE_LISTEN_URL name the server itself, or a pooler that lends connections for a session"
    )
