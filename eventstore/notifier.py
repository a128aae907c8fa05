"""The notifier: consumers wait for LISTEN/NOTIFY on one connection and receive new events as batches.

Waking somebody costs the appends (``NOTIFY``, and the machine's time for looking), and costs the same however many
events are found. A consumer at rest is woken by each append. In a stream it takes what has come, some times a second.

It may go to another address than all others (``EVENTSTORE_LISTEN_URL``), because a pooler that lends connections for
one transaction swallows notifications. Whether one comes through is tried when it is opened. Every answer has a
deadline: a peer that is gone without a word is noticed by the first one that does not come.

The order of the steps is what makes it right, and is argued in ``docs/concepts/order.md``. A notification is answered
by one look for new events, sent before anything else happens. Events that follow the last one seen without a gap are
final, for their positions are taken; where there is a gap, the horizon tells.

One listening connection per store, shared by all consumers of the process, and connected anew whenever it fails. What
happens on it is in ``notifier.py``; why nothing is slept through is argued in ``docs/concepts/order.md``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import sql
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq.abc import PGresult
from psycopg.types.string import ByteaBinaryLoader

from eventstore.concurrency import cancel_and_wait
from eventstore.database import binary_format
from eventstore.database.connection import AUDITOR, PROJECTOR, Connection
from eventstore.database.pipelined_connection import PipelinedConnection, Statement
from eventstore.database.pools import Pool
from eventstore.database.queries import query
from eventstore.errors import (
    ConnectionLost,
    EventStoreError,
    InputError,
    RetryableError,
    ServerUnreachable,
    SettingsError,
    StoreClosed,
    translate,
    translated,
)
from eventstore.events import CONTENT, Event
from eventstore.scope import ALL_TENANTS, Scope

# How often a consumer that follows a stream may look: at once after a rest, ever less often while it goes on and on

POLL_SHARE = 0.1
"""Of the time that a consumer may spend in rounds, in the long run."""
ROUND_SECONDS = 0.001
"""What a round costs, beside the work that the consumer itself reports."""
SAVED_SECONDS = 0.05
"""Spent at most in one go after a rest: fifty rounds that cost no more."""
LONGEST_PAUSE_SECONDS = 0.5


class PollThrottle:
    """A purse of seconds, filled by time and emptied by rounds."""

    def __init__(self, now: float) -> None:
        self._purse = SAVED_SECONDS
        self._counted_at = now

    def spend(self, now: float, seconds: float = ROUND_SECONDS) -> None:
        """Takes what a round has cost."""
        self._count(now)
        self._purse -= seconds

    def pause(self, now: float) -> float:
        """Seconds to wait before the next round; 0 where it may begin at once."""
        self._count(now)
        return min(max(-self._purse / POLL_SHARE, 0.0), LONGEST_PAUSE_SECONDS)

    def _count(self, now: float) -> None:
        # Debts beyond the longest pause are forgiven, or one long round would slow down all that follow.
        saved = max(self._purse, -LONGEST_PAUSE_SECONDS * POLL_SHARE) + (now - self._counted_at) * POLL_SHARE
        self._purse = min(saved, SAVED_SECONDS)
        self._counted_at = now


# The listening connection: it hears of appends, looks what is new, and lies on it while its consumers sleep

ANSWER_SECONDS = 2.5
"""An answer that takes longer will not come: then the connection is given up."""

POLL_SECONDS = 5.0
"""Who hears nothing looks by himself this often: a net under the notifications, and what notices a dead connection."""
HIGHEST_QUEUE_USAGE = 0.5
"""Of the server's queue of notifications. From here on no append notifies (``has_waiters``), and listening is put
off: a new listener would first read what stands in the queue."""
IDLE_SECONDS = 6 * POLL_SECONDS
"""A session that asks nothing for so long has lost its client, and is ended by the server."""

_NOWHERE = 2**63 - 1
_LISTEN = query("eventstore", "listen")
_LOOK = Statement(b"eventstore_look", query("eventstore", "look").encode(), (binary_format.INT8, binary_format.INT4))
_HORIZON = Statement(b"eventstore_horizon", query("eventstore", "horizon").encode(), ())
_BEGIN_WAIT = Statement(b"eventstore_begin_wait", b"SELECT begin_wait($1)", (binary_format.INT8,))
_SET_SCOPE = Statement(
    b"eventstore_set_scope",
    query("eventstore", "set_scope").encode(),
    (binary_format.TEXT, binary_format.TEXT, binary_format.TEXT),
)
_END_WAIT = Statement(b"eventstore_end_wait", b"SELECT end_wait()", ())


Found = tuple[int, Event | None]
"""A position that is taken, and its event where it can be seen."""


class Listener:
    """A connection that listens, with one statement at a time.

    Attributes:
        scope: events it sees; None is nobody's.
    """

    def __init__(self, connection: Connection, on_notified: Callable[[], None]) -> None:
        """Takes over a connection on which ``LISTEN`` was committed.

        Args:
            on_notified: called for each notification, and when the connection has ended.
        """
        self._pipeline = PipelinedConnection(connection, lambda _: on_notified(), on_notified)
        self._reads = Transformer(_Reading(connection))
        self._is_first = True
        self.scope: Scope | None = None
        self._loop = asyncio.get_running_loop()

    async def prepare(self) -> None:
        """Prepares the statements."""
        with translated():
            await self._pipeline.prepare((_LOOK, _HORIZON, _BEGIN_WAIT, _END_WAIT, _SET_SCOPE))

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

        return self._ask(_LOOK, [binary_format.int8(after), binary_format.int4(limit)], read)

    async def set_scope(self, scope: Scope | None) -> None:
        """Looks as somebody else from now on; this session is not lent to anybody."""
        if scope == self.scope:
            return
        tenant, user, role = "", "", PROJECTOR
        if scope is not ALL_TENANTS:
            tenant, user, role = (scope.tenant, scope.user or "", AUDITOR) if scope else ("", "", AUDITOR)
        self.scope = None  # until it is done
        await self._ask(_SET_SCOPE, [tenant.encode(), user.encode(), role.encode()], lambda result: None)
        self.scope = scope

    async def horizon(self) -> int:
        """The position up to which the log is final."""
        return int(await self._ask(_HORIZON, [], _number))

    async def begin_wait(self, seen: int) -> bool:
        """True if from now on every append notifies, and none is waiting beyond ``seen``."""
        return bool(
            await self._ask(_BEGIN_WAIT, [binary_format.int8(seen)], lambda result: result.get_value(0, 0) == b"\x01")
        )

    async def end_wait(self) -> None:
        """The opposite; does no harm to who is up."""
        await self._ask(_END_WAIT, [], lambda result: None)

    async def touch(self) -> None:
        """A round trip, which fails where the connection is dead."""
        await self.look(_NOWHERE, 1, lambda events: None)

    def close(self) -> None:
        """Ends the connection without a word more than needed."""
        self._pipeline.close()

    def _ask(
        self, statement: Statement, parameters: Sequence[bytes], read: Callable[[PGresult], Any]
    ) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._pipeline.is_broken:
            answer.set_exception(ConnectionLost("the listening connection was lost"))
            return answer

        def done(result: PGresult | psycopg.Error) -> None:
            if answer.done():
                return
            if isinstance(result, psycopg.Error):
                answer.set_exception(translate(result))
            else:
                answer.set_result(read(result))

        self._pipeline.send(statement, parameters, done)
        deadline = self._loop.call_later(ANSWER_SECONDS, self._pipeline.close)

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
    connect: Callable[[], Awaitable[Connection]], pool: Pool, on_notified: Callable[[], None], seconds: float
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
            return await _open(connect, pool, on_notified)
    except TimeoutError:
        raise ServerUnreachable(
            f"no listening connection could be opened within {seconds} seconds: the server, or something before it, "
            "does not answer"
        ) from None


async def _open(connect: Callable[[], Awaitable[Connection]], pool: Pool, on_notified: Callable[[], None]) -> Listener:
    connection = await connect()
    try:
        with translated():
            await _receive_trial(connection, pool)
            row = await (await connection.execute(_LISTEN, {"idle": str(int(IDLE_SECONDS * 1000))})).fetchone()
            assert row is not None  # one row, whatever happens
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(row[0])))
        listener = Listener(connection, on_notified)
    except BaseException:
        await connection.close()
        raise
    try:
        await listener.prepare()
    except BaseException:
        listener.close()
        raise
    return listener


async def _receive_trial(connection: Connection, pool: Pool) -> None:
    [(usage,)] = await pool.fetch("SELECT pg_notification_queue_usage()")
    if usage >= HIGHEST_QUEUE_USAGE:
        raise RetryableError(
            f"the server's queue of notifications is {usage:.0%} full: consumers poll until it has drained"
        )
    name = f"eventstore_trial_{secrets.token_hex(8)}"
    channel = sql.Identifier(name)
    await connection.execute(sql.SQL("LISTEN {}").format(channel))
    await pool.fetch("SELECT pg_notify(%s, '')", [name])
    notified = [notify async for notify in connection.notifies(timeout=ANSWER_SECONDS, stop_after=1)]
    if not notified:
        raise await _why_not_listening(connection, pool)
    await connection.execute(sql.SQL("UNLISTEN {}").format(channel))


async def _why_not_listening(connection: Connection, pool: Pool) -> EventStoreError:
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
    return binary_format.to_int8(value)


# The watch over the log on one listening connection: looking, lying down, sleeping, getting up

_GRACE_SECONDS = 0.005  # who was woken and comes back so soon finds the connection still lying
_BACK_OFF_FIRST, _BACK_OFF_LONGEST = 0.001, 0.05


class Interest(NamedTuple):
    """What those who wait want.

    Attributes:
        seen: the lowest position that one of them has seen.
        limit: how many events at most.
        scope: as whom to look; None is as nobody, who learns only that something is there.
    """

    seen: int
    limit: int
    scope: Scope | None


class EventBatch(NamedTuple):
    """What has come.

    Attributes:
        after: the position behind which was looked.
        position: up to which the log is final, and an event stands there.
        events: those between that can be seen, in order.
        are_all: whether nothing was left behind them.
        scope: as whom was looked; None is as nobody.
    """

    after: int
    position: int
    events: list[Event]
    are_all: bool
    scope: Scope | None

    def without_events(self) -> EventBatch:
        """For those who have to look for themselves."""
        return self._replace(events=[], are_all=False, scope=None)


class Subscribers(Protocol):
    """Those for whom is watched."""

    def demand(self) -> Interest | None:
        """What is wanted now; None where nobody waits."""

    def notify(self) -> None:
        """Told that something has come, before it is known what."""

    def deliver(self, batch: EventBatch) -> bool:
        """Takes what has come; False where nobody wanted it."""


class LogWatcher:
    """What is known on one connection, from its beginning to its end."""

    def __init__(self, subscribers: Subscribers, pace: PollThrottle) -> None:
        self._subscribers = subscribers
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._has_waiter = asyncio.Event()
        self._wake_up: asyncio.Future[None] | None = None
        self._looking: asyncio.Future[list[Found]] | None = None
        self._is_waiting = False
        self._must_look = False  # something may have come since the last look
        self._covered = 0  # whatever came beyond this position since the last look has been notified
        self._has_gap = False
        self._has_delivered = False
        self._back_off = 0.0

    def notified(self) -> None:
        """An append has ended, or the connection has."""
        self._must_look = True
        if self._wake_up is not None and not self._wake_up.done():
            if self._is_waiting:
                self._subscribers.notify()
                if self._looking is None and self._subscribers.demand() is not None:
                    self._looking = self._begin_look()
            self._wake_up.set_result(None)

    def waiter_added(self, seen: int) -> None:
        """Somebody waits who has seen the log up to this position."""
        self._has_waiter.set()
        if seen < self._covered:
            self._must_look = True
            self._end_pause()

    async def run(self, listener: Listener) -> None:
        """Watches until the connection fails.

        Raises:
            EventStoreError: what happened to it.
        """
        self._listener = listener
        while True:
            await self._await_waiter()
            if pause := self._pace.pause(self._loop.time()):
                await self._end_wait()
                await asyncio.sleep(pause)
            await self._round()

    async def _round(self) -> None:
        demand = self._subscribers.demand()
        if demand is None:
            return
        await self._listener.set_scope(demand.scope)
        if self._is_waiting and not self._must_look and demand.seen >= self._covered:
            await self._wait(POLL_SECONDS)
            return
        if await self._look():
            self._back_off = 0.0
        elif self._has_gap:
            await self._wait_a_little()  # for an append in flight, which may notify or not
        elif not self._is_waiting:
            await self._begin_wait()

    async def _look(self) -> bool:
        """Whether something was handed out."""
        await (self._looking or self._begin_look())
        self._looking = None
        if self._has_gap and not self._has_delivered:
            final = await self._listener.horizon()
            if self._subscribers.demand() is not None:
                await self._begin_look(final)
        self._pace.spend(self._loop.time())
        return self._has_delivered

    def _begin_look(self, final: int = 0) -> asyncio.Future[list[Found]]:
        seen, limit, _ = self._subscribers.demand() or Interest(0, 1, None)
        self._must_look = False
        return self._listener.look(seen, limit, partial(self._found, seen, limit, final))

    def _found(self, seen: int, limit: int, final: int, found: list[Found]) -> None:
        """Hands out what is final: at once, in the callback that brings it."""
        after = seen
        number = 0
        for position, _ in found:
            if position > max(final, seen + 1):
                break
            seen = position
            number += 1
        self._covered = seen
        self._has_gap = number < len(found)
        is_full = len(found) == limit
        self._must_look = self._must_look or self._has_gap or is_full
        events = [event for _, event in found[:number] if event is not None]
        batch = EventBatch(after, seen, events, not is_full, self._listener.scope)
        self._has_delivered = number > 0 and self._subscribers.deliver(batch)

    async def _begin_wait(self) -> None:
        demand = self._subscribers.demand()
        if demand is None:
            return
        self._must_look = False
        if await self._listener.begin_wait(demand.seen):
            self._is_waiting = True
            self._covered = demand.seen
            self._back_off = 0.0
        else:
            await self._wait_a_little()  # an append is in flight, or its event already waits

    async def _end_wait(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            await self._listener.end_wait()

    async def _await_waiter(self) -> None:
        if await self._has_waiter_within(_GRACE_SECONDS):
            return
        await self._end_wait()  # a consumer that is busy needs no waking
        while not await self._has_waiter_within(POLL_SECONDS):
            await self._listener.touch()

    async def _has_waiter_within(self, seconds: float) -> bool:
        if self._subscribers.demand() is not None:
            return True
        self._has_waiter.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._has_waiter.wait()
        except TimeoutError:
            return False
        return True

    async def _wait_a_little(self) -> None:
        if self._back_off:
            await self._wait(self._back_off)
        self._back_off = min(max(self._back_off * 2, _BACK_OFF_FIRST), _BACK_OFF_LONGEST)

    async def _wait(self, seconds: float) -> None:
        """Until something is heard, somebody comes who has seen less, or the time to look anyway."""
        self._wake_up = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._time_to_look)
        try:
            await self._wake_up
        finally:
            timer.cancel()
            self._wake_up = None
        if self._looking is not None:
            await self._look()

    def _time_to_look(self) -> None:
        self._must_look = True
        self._end_pause()

    def _end_pause(self) -> None:
        if self._wake_up is not None and not self._wake_up.done():
            self._wake_up.set_result(None)


# Waking: a consumer that has nothing to do sleeps until an append says otherwise

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0
"""Between attempts to connect; meanwhile the consumers look for themselves, as often."""

LOOK_EVENTS = 100
"""So many events at most come with the waking; a consumer that is further behind reads on by itself."""


class Notifier:
    """Lets the consumers of one event loop sleep on one connection."""

    def __init__(self, open_listener: Callable[[Callable[[], None]], Coroutine[Any, Any, Listener]]) -> None:
        """Connects when somebody waits.

        Args:
            open_listener: connects; the listener calls back for each notification, and when it has ended.
        """
        self._open_listener = open_listener
        self._waiting: dict[asyncio.Future[EventBatch | None], Interest] = {}
        self._loop = asyncio.get_running_loop()
        self._pace = PollThrottle(self._loop.time())
        self._watch: LogWatcher | None = None
        self._task: asyncio.Task[None] | None = None
        self._said = ""
        self._closed = False

    async def wait(self, seen: int, limit: int = LOOK_EVENTS, scope: Scope | None = None) -> EventBatch | None:
        """Returns when there may be events beyond the position ``seen``.

        Args:
            limit: how many events to bring along, at most; 0 for who reads by itself: it is woken before anybody looks.
            scope: events to bring along.

        Returns:
            What has come; without events where others wait who see other ones; None where nobody can look for all.

        Raises:
            InputError: listening connections are not possible; somebody has to correct a setting.
        """
        if self._closed:
            raise StoreClosed
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="eventstore-waker")
        woken: asyncio.Future[EventBatch | None] = self._loop.create_future()
        self._waiting[woken] = Interest(seen, limit, scope if limit else None)
        if self._watch is not None:
            self._watch.waiter_added(seen)
        try:
            return await woken
        finally:
            self._waiting.pop(woken, None)

    async def close(self) -> None:
        """Stops listening."""
        self._closed = True
        if self._task is not None:
            await cancel_and_wait([self._task])
            self._task = None
        self._notify_all()  # a task that was cancelled before its first step woke nobody

    def demand(self) -> Interest | None:
        """What those who wait want now; None where nobody does."""
        if not self._waiting:
            return None
        wanted = self._waiting.values()
        if len(wanted) == 1:
            [only] = wanted
            return only if only.limit else Interest(only.seen, 1, None)
        lowest = min(each.seen for each in wanted)
        askers = {each.scope for each in wanted if each.limit}
        if len(askers) != 1:
            return Interest(lowest, 1, None)  # what one of them sees is not for the others
        return Interest(lowest, max(each.limit for each in wanted), *askers)

    def notify(self) -> None:
        """Wakes those who read by themselves."""
        for woken in [woken for woken, demand in self._waiting.items() if not demand.limit]:
            del self._waiting[woken]
            if not woken.done():
                woken.set_result(None)

    def deliver(self, batch: EventBatch) -> bool:
        """Wakes those who have not seen all that has come; False if there is nobody.

        Who has not even seen what lies before it, or sees other events, is only told that something is there.
        """
        eager = [(woken, demand) for woken, demand in self._waiting.items() if demand.seen < batch.position]
        for woken, demand in eager:
            del self._waiting[woken]
            if not woken.done():
                fits = demand.seen >= batch.after and demand.scope == batch.scope
                woken.set_result(batch if fits else batch.without_events())
        return bool(eager)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._listen_while_connected()
                except InputError as error:
                    self._fail_all(error)
                    return
                except (psycopg.Error, EventStoreError, OSError) as error:
                    self._say(error)
                # Without a connection nobody can be woken: everybody looks for themselves until there is one again.
                self._notify_all()
                await asyncio.sleep(RECONNECT_SECONDS)
                self._notify_all()
        finally:
            self._notify_all()

    async def _listen_while_connected(self) -> None:
        watch = LogWatcher(self, self._pace)
        listener = await self._open(watch)
        try:
            self._said = ""
            self._watch = watch
            await watch.run(listener)
        finally:
            self._watch = None
            listener.close()

    async def _open(self, watch: LogWatcher) -> Listener:
        """Connects, while the consumers look for themselves."""
        opening = asyncio.create_task(self._open_listener(watch.notified))
        try:
            while not opening.done():
                await asyncio.wait([opening], timeout=RECONNECT_SECONDS)
                if not opening.done():
                    self._notify_all()
            return opening.result()
        except BaseException:
            await cancel_and_wait([opening])
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()
            raise

    def _say(self, error: Exception) -> None:
        """Once, until it has worked again."""
        if str(error) != self._said:
            self._said = str(error)
            log.warning("listening: %s", error)

    def _notify_all(self) -> None:
        self._deliver_to_all(lambda woken: woken.set_result(None))

    def _fail_all(self, error: Exception) -> None:
        self._deliver_to_all(lambda woken: woken.set_exception(error))

    def _deliver_to_all(self, tell: Callable[[asyncio.Future[EventBatch | None]], None]) -> None:
        waiting, self._waiting = self._waiting, {}
        for woken in waiting:
            if not woken.done():
                tell(woken)
