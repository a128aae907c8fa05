"""The listening connection: it hears of appends, looks what is new, and lies on it while its consumers sleep.

It may go to another address than all others (``EVENTSTORE_LISTEN_URL``), because a pooler that lends connections for
one transaction swallows notifications. Whether one comes through is tried when it is opened. Every answer has a
deadline: a peer that is gone without a word is noticed by the first one that does not come.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq.abc import PGresult
from psycopg.types.string import ByteaBinaryLoader

from eventstore.caller import EVERYBODY, Whose
from eventstore.database import binary
from eventstore.database.connection import AUDITOR, PROJECTOR, Connection
from eventstore.database.lane import Lane, Statement
from eventstore.database.pool import Pool
from eventstore.database.queries import query
from eventstore.database.translate import translate, translated
from eventstore.errors import ConnectionLost, EventStoreError, RetryableError, ServerUnreachable, SettingsError
from eventstore.events import CONTENT, Event

ANSWER_SECONDS = 2.5
"""An answer that takes longer will not come: then the connection is given up."""

POLL_SECONDS = 5.0
"""Who hears nothing looks by himself this often: a net under the notifications, and what notices a dead connection."""
HIGHEST_QUEUE_USAGE = 0.5
"""Of the server's queue of notifications. From here on no append notifies (``somebody_sleeps``), and listening is put
off: a new listener would first read what stands in the queue."""
IDLE_SECONDS = 6 * POLL_SECONDS
"""A session that asks nothing for so long has lost its client, and is ended by the server."""

_NOWHERE = 2**63 - 1
_LISTEN = query("eventstore", "listen")
_LOOK = Statement(b"eventstore_look", query("eventstore", "look").encode(), (binary.INT8, binary.INT4))
_HORIZON = Statement(b"eventstore_horizon", query("eventstore", "horizon").encode(), ())
_LIE_DOWN = Statement(b"eventstore_lie_down", b"SELECT lie_down($1)", (binary.INT8,))
_TURN_TO = Statement(
    b"eventstore_turn_to", query("eventstore", "turn_to").encode(), (binary.TEXT, binary.TEXT, binary.TEXT)
)
_GET_UP = Statement(b"eventstore_get_up", b"SELECT get_up()", ())


Found = tuple[int, Event | None]
"""A position that is taken, and its event where it can be seen."""


class Listener:
    """A connection that listens, with one statement at a time.

    Attributes:
        whose: events it sees; None is nobody's.
    """

    def __init__(self, connection: Connection, on_heard: Callable[[], None]) -> None:
        """Takes over a connection on which ``LISTEN`` was committed.

        Args:
            on_heard: called for each notification, and when the connection has ended.
        """
        self._lane = Lane(connection, lambda _: on_heard(), on_heard)
        self._reads = Transformer(_Reading(connection))
        self._is_first = True
        self.whose: Whose | None = None
        self._loop = asyncio.get_running_loop()

    async def prepare(self) -> None:
        """Prepares the statements."""
        with translated():
            await self._lane.prepare((_LOOK, _HORIZON, _LIE_DOWN, _GET_UP, _TURN_TO))

    def look(self, after: int, limit: int, found: Callable[[list[Found]], None]) -> asyncio.Future[list[Found]]:
        """Looks for events after a position, the first ones first, final or not; it is under way at once.

        Args:
            found: told what was found, at once.
        """

        def read(result: PGresult) -> list[Found]:
            self._reads.set_pgresult(result, set_loaders=self._is_first)
            self._is_first = False
            rows = self._reads.load_rows(0, result.ntuples, tuple)
            events = [(row[0], None if row[CONTENT] is None else Event.from_row(row)) for row in rows]
            found(events)
            return events

        return self._ask(_LOOK, [binary.int8(after), binary.int4(limit)], read)

    async def turn_to(self, whose: Whose | None) -> None:
        """Looks as somebody else from now on; this session is not lent to anybody."""
        if whose == self.whose:
            return
        tenant, user, role = "", "", PROJECTOR
        if whose is not EVERYBODY:
            tenant, user, role = (whose.tenant, whose.user or "", AUDITOR) if whose else ("", "", AUDITOR)
        self.whose = None  # until it is done
        await self._ask(_TURN_TO, [tenant.encode(), user.encode(), role.encode()], lambda result: None)
        self.whose = whose

    async def horizon(self) -> int:
        """The position up to which the log is final."""
        return int(await self._ask(_HORIZON, [], _number))

    async def lie_down(self, seen: int) -> bool:
        """True if from now on every append notifies, and none is waiting beyond ``seen``."""
        return bool(await self._ask(_LIE_DOWN, [binary.int8(seen)], lambda result: result.get_value(0, 0) == b"\x01"))

    async def get_up(self) -> None:
        """The opposite; does no harm to who is up."""
        await self._ask(_GET_UP, [], lambda result: None)

    async def touch(self) -> None:
        """A round trip, which fails where the connection is dead."""
        await self.look(_NOWHERE, 1, lambda events: None)

    def close(self) -> None:
        """Ends the connection without a word more than needed."""
        self._lane.close()

    def _ask(
        self, statement: Statement, parameters: Sequence[bytes], read: Callable[[PGresult], Any]
    ) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._lane.is_broken:
            answer.set_exception(ConnectionLost("the listening connection was lost"))
            return answer

        def done(result: PGresult | psycopg.Error) -> None:
            if answer.done():
                return
            if isinstance(result, psycopg.Error):
                answer.set_exception(translate(result))
            else:
                answer.set_result(read(result))

        self._lane.send(statement, parameters, done)
        deadline = self._loop.call_later(ANSWER_SECONDS, self._lane.close)

        def settled(answer: asyncio.Future[Any]) -> None:
            deadline.cancel()
            if not answer.cancelled():
                answer.exception()  # known, also where the one who asked was cancelled meanwhile

        answer.add_done_callback(settled)
        return answer


class _Reading:
    """How values of a result are read: everything but JSON as Python's, as :meth:`Event.from_row` takes them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.adapters = AdaptersMap(connection.adapters)
        self.adapters.register_loader("jsonb", ByteaBinaryLoader)


async def open_listener(
    connect: Callable[[], Awaitable[Connection]], pool: Pool, on_heard: Callable[[], None], seconds: float
) -> Listener:
    """Connects, and makes sure that what the store's other connections notify is heard.

    Args:
        connect: opens a connection to where listening connections go.
        pool: the store's other connections.
        seconds: how long it may take to connect.

    Raises:
        SettingsError: the connection goes to another database.
        ServerUnreachable: nobody answers in time.
        ConnectionLost: notifications do not come through.
    """
    try:
        async with asyncio.timeout(seconds + ANSWER_SECONDS):
            return await _open(connect, pool, on_heard)
    except TimeoutError:
        raise ServerUnreachable(
            f"no listening connection could be opened within {seconds} seconds: the server, or something before it, "
            "does not answer"
        ) from None


async def _open(connect: Callable[[], Awaitable[Connection]], pool: Pool, on_heard: Callable[[], None]) -> Listener:
    connection = await connect()
    try:
        with translated():
            await _hear_a_trial(connection, pool)
            row = await (await connection.execute(_LISTEN, {"idle": str(int(IDLE_SECONDS * 1000))})).fetchone()
            assert row is not None  # one row, whatever happens
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(row[0])))
        listener = Listener(connection, on_heard)
    except BaseException:
        await connection.close()
        raise
    try:
        await listener.prepare()
    except BaseException:
        listener.close()
        raise
    return listener


async def _hear_a_trial(connection: Connection, pool: Pool) -> None:
    [(usage,)] = await pool.fetch("SELECT pg_notification_queue_usage()")
    if usage >= HIGHEST_QUEUE_USAGE:
        raise RetryableError(
            f"the server's queue of notifications is {usage:.0%} full: consumers poll until it has drained"
        )
    name = f"eventstore_trial_{secrets.token_hex(8)}"
    channel = sql.Identifier(name)
    await connection.execute(sql.SQL("LISTEN {}").format(channel))
    await pool.fetch("SELECT pg_notify(%s, '')", [name])
    heard = [notify async for notify in connection.notifies(timeout=ANSWER_SECONDS, stop_after=1)]
    if not heard:
        raise await _why_deaf(connection, pool)
    await connection.execute(sql.SQL("UNLISTEN {}").format(channel))


async def _why_deaf(connection: Connection, pool: Pool) -> EventStoreError:
    """Another database, or something in between. A lock is seen by everybody in the database, and by nobody else."""
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


def _number(result: PGresult) -> int:
    value = result.get_value(0, 0)
    assert value is not None  # functions that never return null
    return binary.to_int8(value)
