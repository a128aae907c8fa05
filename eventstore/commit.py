"""Group commit: appends that arrive while others are in flight are sent together, in one statement and one transaction.

A durable commit costs one flush however many events it carries, and a statement of many events costs little more than
one of a few. An append is sent immediately if a connection is idle; otherwise it joins the next group. Within a group
each append is accepted or refused by itself (see the function ``append_group``), whatever the outcome of the others,
and whosever they are.

**Order.** Appends to one conversation are stored in the order in which they were made. While an append is in flight or
set aside its conversations are *reserved*: later appends to them stay in the queue. An append that goes back to the
queue goes to its front.

**Fairness.** Tenants take turns: whatever one has in the queue, the next append of each other one is in the next group.
An append that is larger than a group goes out only if no other such one is in flight, so a connection is always left
for the small ones, and events of more than a few appends are serialised in slices, between which the others go on.

**Locked conversations.** A group only tries the locks of its conversations. An append to a conversation that another
transaction holds is set aside and sent again by itself, on a connection that waits for the lock. The others go on.

**Errors.** A statement that fails has written nothing. If it carried several appends, each is sent again by itself and
meets its own outcome. If the answer to a statement is lost, nobody knows what happened: the appends are sent again
under the same ids, which is harmless. An append that may be stored, by any of its tries, ends in
:class:`ConnectionLost`, which names its ids; every other error means that it is not stored.

**Deadlines.** Every append ends within ``EVENTSTORE_APPEND_SECONDS``. A statement has half of that: then it is canceled
and, if that does not help, its connection is closed, so that there is time to send it again on another one (to the
promoted standby, for instance, if the server vanished). That holds for a statement whose callers gave up, too.

**Poolers.** A pooler in transaction mode may lend a session in which another part of a store has taken its role, which
may not append. Then nothing was written, and the appends are sent again; from then on each sets its role in its own
transaction, which makes the message longer and costs no round trip.

What waits is bounded (:mod:`eventstore.backpressure`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import UUID

import psycopg
from psycopg.pq.abc import PGresult

from eventstore.append import BUSY, SLICE_EVENTS, Append
from eventstore.backpressure import Backpressure
from eventstore.batching import (
    SAY_ROLE,
    STATEMENTS,
    ConversationKey,
    Group,
    PendingAppend,
    in_turn,
    next_group,
    outcomes,
    statement,
)
from eventstore.caller import Caller
from eventstore.database.connection import Connection
from eventstore.database.lane import Lane, Said
from eventstore.database.queries import query
from eventstore.database.translate import is_for_want_of_role, is_notify_queue_full, translate, translated
from eventstore.ending import end
from eventstore.errors import (
    ConnectionLost,
    ConversationLocked,
    EventStoreError,
    Forbidden,
    LockHolder,
    ServerError,
    ServerUnreachable,
    StoreClosed,
)
from eventstore.events import AppendResult

GROUPS_IN_FLIGHT = 2
"""While the server works on one, the next is made ready."""
LOCK_WAITERS = 2
"""Further connections, which wait for conversations that other transactions hold."""
LOCK_WAIT_MS = 1000
"""After which the next locked conversation has its turn."""

MAX_LOSSES = 2
"""Lost answers to one append, until its caller is told: it may be the append that ends the connections."""
RECONNECT_SECONDS = 0.2
CLOSE_SECONDS = 5.0
"""How long closing waits for answers."""
EXPLAIN_SECONDS = 2.0
"""For finding out who holds a conversation."""
TICK_SECONDS = 0.25
"""How often deadlines are checked."""

_KEEP_PLANS = query("eventstore", "keep_plans")
_LOCK_TIMEOUT = "55P03"
_NO_SUCH_STATEMENT = "26000"  # a pooler gave the connection to somebody else in between

_NOT_SENT = "the append was not sent within {:g} s: the server is away or overloaded: repeat it; nothing was written"
_NO_ANSWER = "the server takes connections and does not answer on them: repeat the call, or restart the server"

Holders = dict[ConversationKey, list[LockHolder]]


class Committer:
    """Sends the appends of one event loop."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[tuple[Connection, str]]],
        find_holders: Callable[[Sequence[ConversationKey]], Awaitable[Holders]],
        why: Callable[[EventStoreError], EventStoreError],
        *,
        connect_seconds: float,
        append_seconds: float,
    ) -> None:
        """Create a committer; it connects when there is something to append.

        Args:
            connect: opens a connection that may append, and returns the role that it took for that.
            find_holders: asks the server which transactions hold conversations.
            why: the better explanation of an error of the server.
            connect_seconds: how long an append waits for a connection while the server is away.
            append_seconds: the deadline of an append.
        """
        self._connect = connect
        self._find_holders = find_holders
        self._why = why
        self._connect_seconds = connect_seconds
        self._append_seconds = append_seconds
        self._loop = asyncio.get_running_loop()
        self._pending: dict[PendingAppend, None] = {}  # the oldest first
        self._queue: deque[PendingAppend] = deque()
        self._set_aside: deque[PendingAppend] = deque()
        self._reserved: set[ConversationKey] = set()
        self._locked: set[ConversationKey] = set()  # found locked when they were last tried
        self._in_flight = {False: 0, True: 0}  # by whether they wait for locks
        self._large_in_flight = 0
        self._overdue_locked: list[PendingAppend] = []
        self._backpressure = Backpressure(self._admit)
        self._preparing: set[asyncio.Task[None]] = set()
        self._lanes: list[Lane] = []
        self._role = b""
        self._says_role = False
        self._opening: asyncio.Task[None] | None = None
        self._open_again_at = 0.0
        self._explaining: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle = asyncio.Event()  # nothing is pending
        self._is_idle.set()
        self._is_due = False
        self._is_closed = False

    async def append(
        self, caller: Caller, appends: Sequence[Append], max_content_bytes: int, actor: str
    ) -> AppendResult:
        """Append to one conversation or several, as soon as there is capacity for it.

        Raises:
            Forbidden, ConflictError, InputError: its own outcome.
            ConnectionLost: it may be stored.
            ConversationLocked, ServerUnreachable, StoreClosed: it was not sent, or found the conversation locked.
        """
        if self._is_closed:
            raise StoreClosed
        append = PendingAppend(
            (caller.tenant, appends, max_content_bytes, actor, caller.user or ""),
            self._loop.time() + self._append_seconds - 2 * TICK_SECONDS,
            self._loop.create_future(),
        )
        self._pending[append] = None
        self._is_idle.clear()
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        try:
            self._backpressure.request(append)
            told = await append.result
            try:
                return append.batch.result(told)
            except Forbidden as error:  # of this try; an earlier one may have come before the user lost access
                if append.may_be_stored:
                    raise _may_be_stored(append, error) from error
                raise
        finally:
            del self._pending[append]
            if not self._pending:
                self._is_idle.set()
            self._withdraw(append)
            self._backpressure.release(append)

    async def close(self) -> None:
        """Refuse the appends that are not in flight, wait for those that are, and close the connections."""
        self._is_closed = True
        self._refuse_waiting(StoreClosed())
        if self._opening is not None:
            await end([self._opening])
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._is_idle.wait()
        for lane in list(self._lanes):
            lane.close()
        if self._explaining is not None:
            await end([self._explaining])
        await end(list(self._preparing))
        await self._is_idle.wait()  # every append has its result, and its caller is about to have it
        if self._timer is not None:
            self._timer.cancel()

    def _admit(self, append: PendingAppend) -> None:
        is_alone = self._backpressure.is_alone(append)
        if append.events > SLICE_EVENTS:
            self._queue.append(append)  # its place in the order of its conversations
            task = asyncio.create_task(self._prepare(append), name="eventstore-prepare")
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)
            return
        try:
            append.prepare()
        except Exception as error:
            append.result.set_exception(error)
            return
        self._backpressure.weigh(append)
        self._queue.append(append)
        if is_alone:
            self._send_next()
        else:
            self._be_due()  # together with all that arrive in this turn of the event loop

    async def _prepare(self, append: PendingAppend) -> None:
        """Prepare a large append while others are sent."""
        try:
            await append.prepare_in_slices()
        except Exception as error:
            if not append.result.done():
                append.result.set_exception(error)
        else:
            self._backpressure.weigh(append)
        self._be_due()

    def _be_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._send_next)

    def _send_next(self) -> None:
        """Send everything that can be sent now."""
        self._is_due = False
        self._queue = in_turn(self._queue)
        while self._queue and self._in_flight[False] < GROUPS_IN_FLIGHT and (lane := self._idle_lane()):
            ways = min(GROUPS_IN_FLIGHT - self._in_flight[False], sum(lane.is_idle for lane in self._lanes))
            share = -(-len(self._queue) // ways)  # as much on each, so that client and server work at the same time
            group = next_group(self._queue, self._reserved, share, takes_large=not self._large_in_flight)
            if not group:
                break
            self._send(lane, group)
        while self._set_aside and self._in_flight[True] < LOCK_WAITERS and (lane := self._idle_lane()):
            self._send(lane, [self._set_aside.popleft()], waits=True)

    def _idle_lane(self) -> Lane | None:
        for lane in self._lanes:
            if lane.is_idle:
                return lane
        if self._opening is None and not self._is_closed:
            self._opening = asyncio.create_task(self._open_lane(), name="eventstore-lane")
        return None

    def _send(self, lane: Lane, group: Group, *, waits: bool = False) -> None:
        """Send a group, or one append that waits for its locks."""
        for append in group:
            self._reserved.update(append.conversations)
            append.is_in_flight = True
        self._in_flight[waits] += 1
        self._large_in_flight += group[0].is_large
        milliseconds = 0
        if waits:
            left = group[0].deadline - self._loop.time()
            milliseconds = max(1, min(LOCK_WAIT_MS, int(1000 * left)))
        said: Said | None = (SAY_ROLE, [self._role]) if self._says_role else None
        lane.send(
            *statement(group, milliseconds),
            lambda answer: self._answered(group, answer, lane, waits=waits, said_role=said is not None),
            said,
        )

    def _answered(
        self, group: Group, answer: PGresult | psycopg.Error, lane: Lane, *, waits: bool, said_role: bool
    ) -> None:
        self._in_flight[waits] -= 1
        self._large_in_flight -= group[0].is_large
        for append in group:
            self._reserved.difference_update(append.conversations)
            append.is_in_flight = False
        again: list[PendingAppend] = []
        if not isinstance(answer, psycopg.Error):
            told = outcomes(answer)
            first = 0
            for append in group:
                last = first + len(append.batch.rows)
                of_append, first = told[first:last], last
                if any(outcome.code == BUSY for outcome in of_append):
                    self._set_locked_aside(append, again)
                else:
                    self._locked.difference_update(append.conversations)
                    if not append.result.done():
                        append.result.set_result(of_append)
        elif not said_role and is_for_want_of_role(answer):
            self._says_role = True
            again += group
        elif waits and answer.sqlstate == _LOCK_TIMEOUT:
            self._set_locked_aside(group[0], again)
        else:
            self._failed(group, answer, lane, again)
        if self._is_closed:
            for append in again:
                self._refuse(append, StoreClosed())
        else:
            self._queue.extendleft(reversed(again))
        if self._queue or self._set_aside:
            self._be_due()

    def _set_locked_aside(self, append: PendingAppend, again: list[PendingAppend]) -> None:
        """Set an append aside, unless an earlier one of its conversations is: then it goes back to the queue."""
        self._locked.update(append.conversations)
        if append.is_over:
            return
        if self._is_closed or not self._reserved.isdisjoint(append.conversations):
            again.append(append)
        elif append.deadline <= self._loop.time():
            self._expire(append)
        else:
            self._reserved.update(append.conversations)
            self._set_aside.append(append)

    def _failed(self, group: Group, error: psycopg.Error, lane: Lane, again: list[PendingAppend]) -> None:
        is_unknown = lane.is_broken or error.sqlstate is None
        # Another append than that which found the queue full does not notify.
        is_lost = is_unknown or error.sqlstate == _NO_SUCH_STATEMENT or is_notify_queue_full(error)
        for append in group:
            append.may_be_stored |= is_unknown
            append.losses += is_lost
            if append.losses > MAX_LOSSES or (not is_lost and len(group) == 1):
                self._refuse(append, self._why(translate(error)), error)
            else:
                append.is_alone |= not is_lost
                again.append(append)

    def _refuse(self, append: PendingAppend, error: EventStoreError, cause: Exception | None = None) -> None:
        """End an append with an error; with the one that says so, if it may be stored."""
        if append.result.done():
            return
        if append.is_in_flight or append.may_be_stored:
            error, cause = _may_be_stored(append, error), error
        error.__cause__ = cause
        append.result.set_exception(error)

    def _refuse_waiting(self, error: EventStoreError, seconds: float = 0.0) -> None:
        """Refuse the appends that are not in flight and have waited for so long."""
        latest = self._loop.time() - seconds + self._append_seconds
        for append in self._pending:
            if append.deadline > latest:
                break
            if not append.is_in_flight:
                self._refuse(append, error)
        self._queue = deque(append for append in self._queue if not append.is_over)
        for append in [append for append in self._set_aside if append.is_over]:
            self._withdraw(append)

    def _withdraw(self, append: PendingAppend) -> None:
        """Free the conversations of an append that is set aside."""
        if append in self._set_aside:
            self._set_aside.remove(append)
            self._reserved.difference_update(append.conversations)
            self._be_due()

    def _tick(self) -> None:
        """End the appends and the statements that have reached their deadlines."""
        self._timer = None
        now = self._loop.time()
        for append in self._pending:
            if append.deadline > now:
                break
            if not (append.is_in_flight and append.deadline + TICK_SECONDS > now):  # it may wait for a lock until then
                self._expire(append)
        for lane in list(self._lanes):
            if lane.sent_at is not None and lane.sent_at + self._append_seconds / 2 <= now:
                lane.give_up()
        if self._pending or any(self._in_flight.values()):
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        else:
            self._locked.clear()

    def _expire(self, append: PendingAppend) -> None:
        """End an append that has reached its deadline."""
        if append.is_over:
            return
        if append.is_in_flight or append.may_be_stored:
            self._refuse(append, ServerUnreachable(f"the server did not answer within {self._append_seconds:g} s"))
            return
        if self._locked.isdisjoint(append.conversations):
            self._refuse(append, ServerUnreachable(_NOT_SENT.format(self._append_seconds)))
            return
        append.is_given_up = True
        self._withdraw(append)
        self._overdue_locked.append(append)
        if self._explaining is None:
            self._explaining = asyncio.create_task(self._refuse_locked(), name="eventstore-lock-holders")

    async def _refuse_locked(self) -> None:
        """End appends that waited for locks, with the errors that name the holders."""
        while overdue := self._overdue_locked:
            self._overdue_locked = []
            keys = list(dict.fromkeys(key for append in overdue for key in append.conversations))
            try:
                async with asyncio.timeout(EXPLAIN_SECONDS):
                    holders = await self._find_holders(keys)
            except Exception:
                holders = {}  # it is more important that the append ends
            for append in overdue:
                key = next((key for key in append.conversations if key in holders), append.conversations[0])
                conversation_id = UUID(bytes=key[:16])
                self._refuse(append, ConversationLocked(conversation_id, self._append_seconds, holders.get(key, ())))
        self._explaining = None

    async def _open_lane(self) -> None:
        """Open a connection. If there is none at all, go on trying; each append waits ``connect_seconds`` for it."""
        try:
            await asyncio.sleep(self._open_again_at - self._loop.time())
            while True:
                try:
                    async with asyncio.timeout(self._append_seconds):
                        self._lanes.append(await self._new_lane())
                    return
                except (EventStoreError, TimeoutError) as error:
                    self._open_again_at = self._loop.time() + RECONNECT_SECONDS
                    known = error if isinstance(error, EventStoreError) else ServerUnreachable(_NO_ANSWER)
                    is_passing = isinstance(known, ServerUnreachable | ConnectionLost)
                    if not self._lanes:
                        self._refuse_waiting(self._why(known), self._connect_seconds if is_passing else 0.0)
                    if self._lanes or not (self._queue or self._set_aside):
                        return
                except Exception as error:
                    self._refuse_waiting(ServerError(f"no connection could be opened: {error!r}"))
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            self._opening = None
            self._be_due()

    async def _new_lane(self) -> Lane:
        connection, role = await self._connect()
        self._role = role.encode()
        try:
            with translated():
                await connection.execute(_KEEP_PLANS)
        except BaseException:
            await connection.close()
            raise
        lane = Lane(connection, self._forget)
        try:
            with translated():
                await lane.prepare(STATEMENTS)
        except BaseException:
            lane.close()
            raise
        return lane

    def _forget(self, broken: Lane) -> None:
        if broken in self._lanes:
            self._lanes.remove(broken)
        if broken.is_unanswered:  # then the others lead nowhere, either
            for lane in list(self._lanes):
                lane.close()


def _may_be_stored(append: PendingAppend, reason: EventStoreError) -> ConnectionLost:
    ids = append.batch.event_ids
    shown = ", ".join(map(str, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    return ConnectionLost(
        f"the append was sent, and its outcome is not known: {reason}; the events {shown} may be stored: "
        "append them again with the same ids, which is harmless",
        ids,
    )
