"""Group commit: appends that arrive together are sent in one statement and one transaction.

A durable commit costs one flush however many events it carries, and a statement of many events costs little more than
one of a few. An append is sent immediately if a connection is idle; otherwise it joins the next group. Each append of a
group is accepted or refused independently of the others (see the SQL function ``append_group``).

**The path of an append** leads through these files:

1. ``store.py``: :meth:`EventStore.append` resolves the caller and calls :meth:`AppendBatcher.append` here.
2. ``backpressure.py`` admits the append; ``AppendBatcher._on_admitted`` has it checked and encoded by ``append.py``:
   :meth:`AppendRequest.encode_slices`.
3. ``append_queue.py`` keeps the appends to each conversation in order. ``AppendBatcher._send_groups`` takes what can be
   sent together (:meth:`AppendQueue.take`), and ``_send`` passes its statement and parameters
   (:func:`~eventstore.append.group_statement`) to an idle connection, ``database/pipelined_connection.py``:
   :meth:`PipelinedConnection.send`.
4. The statement, in ``queries/append.sql``, calls the SQL function ``append_one`` or ``append_group``, in
   ``db/schema/append/``.
5. ``AppendBatcher._on_result`` gives each append its outcomes, and :meth:`AppendRequest.result` makes them an
   :class:`AppendResult` or an error.

**Large appends.** An append with more events than a group may have is sent only if no other such append is in flight,
so a connection is always left for small ones; and it is encoded in slices, between which other tasks run.

**Locked conversations.** A group does not wait for locks (``pg_try_advisory_xact_lock``). An append to a conversation
that another transaction has locked is set aside and sent again by itself, on a connection that waits for the lock.

**Errors.** A statement that fails has written nothing. If it carried several appends, each is sent again by itself and
gets its own outcome. If the answer to a statement is lost, its appends are sent again under the same ids, which is
harmless. An append that may be stored by any of its attempts ends with :class:`ConnectionLost`, which names its ids;
every other error means that it is not stored.

**Deadlines.** Every append ends within ``EVENTSTORE_APPEND_SECONDS``. A statement, even one whose callers gave up, has
half of that time. Then it is canceled or, if that fails, its connection is closed, so that there is time to
send it again on another one (for instance to a promoted standby, if the server vanished).

**Poolers.** A pooler in transaction mode may lend a session in which another part of a store has taken its role, which
may not append. Then nothing was written, and the appends are sent again; from then on each statement is preceded by one
that sets the role in its transaction, in the same round trip.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

import psycopg
from psycopg.pq.abc import PGresult

from eventstore.append import (
    APPEND_GROUP,
    APPEND_ONE,
    BUSY,
    NEW,
    Append,
    AppendRequest,
    ConversationKey,
    Outcome,
    group_statement,
    read_outcomes,
)
from eventstore.append_queue import AppendQueue, Group, PendingAppend
from eventstore.backpressure import Backpressure
from eventstore.concurrency import cancel_and_wait, independent_task
from eventstore.database import binary_format
from eventstore.database.connection import RETRY_SECONDS, Connection
from eventstore.database.pipelined_connection import PipelinedConnection, Prelude, Statement
from eventstore.database.queries import query
from eventstore.errors import (
    ConnectionLost,
    ConversationLocked,
    EventStoreError,
    Forbidden,
    LockHolder,
    ServerError,
    ServerUnreachable,
    StoreClosed,
    is_missing_role,
    is_notify_queue_full,
    translate,
    translated,
)
from eventstore.events import AppendResult
from eventstore.metrics import StoreMetrics
from eventstore.scope import Caller

GROUPS_IN_FLIGHT = 2
"""The most statements in flight: while the server executes one group, the next one is sent."""
LOCK_WAITERS = 2
"""Further connections, which wait for conversations that other transactions have locked."""
LOCK_WAIT_MS = 1000
"""The time that one append waits for a lock before it is the turn of the next one."""
MAX_LOST_ANSWERS = 2
"""An append that loses more results than these fails: it may itself be breaking the connections."""
CLOSE_SECONDS = 5.0
"""The time that closing waits for answers."""
FIND_HOLDERS_SECONDS = 2.0
TICK_SECONDS = 0.25
"""The interval at which deadlines are checked."""

_log = logging.getLogger(__name__)
_KEEP_PLANS = query("eventstore", "keep_plans")
_LOCK_HOLDERS = query("eventstore", "lock_holders")
_SET_APPEND_ROLE = Statement(
    b"eventstore_set_append_role", query("eventstore", "set_append_role").encode(), (binary_format.TEXT,)
)
_LOCK_NOT_AVAILABLE = "55P03"
_NO_SUCH_STATEMENT = "26000"  # a pooler has lent another session
_NOT_SENT = "the append was not sent within {:g} s: the server is away or overloaded: repeat it; nothing was written"
_NO_ANSWER = "the server takes connections and does not answer on them: repeat the call, or restart the server"


class AppendBatcher:
    """Sends the appends of one event loop."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        connect_as_login: Callable[[], Awaitable[Connection]],
        explain: Callable[[EventStoreError], EventStoreError],
        *,
        connect_seconds: float,
        append_seconds: float,
        metrics: StoreMetrics,
        slow_seconds: float,
    ) -> None:
        """Create a batcher. It connects when there is something to append.

        Args:
            connect: opens a connection that may append.
            connect_as_login: opens a connection under the login itself, which sees more of its other sessions than a
                role of the store; to find the transactions that hold locks.
            explain: returns a more specific error for an error of the server, or the error itself.
            connect_seconds: how long an append waits for a connection while the server is away.
            append_seconds: the deadline of an append.
            metrics: counts what is sent and stored.
            slow_seconds: an append that takes longer is logged.
        """
        self._connect = connect
        self._connect_as_login = connect_as_login
        self._explain = explain
        self._connect_seconds = connect_seconds
        self._append_seconds = append_seconds
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._slow_seconds = slow_seconds
        self._backpressure = Backpressure(self._on_admitted)
        self._pending: dict[PendingAppend, None] = {}  # an ordered set, the oldest first
        self._queue = AppendQueue()
        self._set_aside: deque[PendingAppend] = deque()
        self._locked: set[ConversationKey] = set()  # found locked by the last attempt
        self._in_flight = {False: 0, True: 0}  # statements, by whether they wait for locks
        self._large_in_flight = 0
        self._encoding: set[asyncio.Task[None]] = set()
        self._pipelines: list[PipelinedConnection] = []
        self._opening: asyncio.Task[None] | None = None
        self._open_again_at = 0.0
        self._role = b""
        self._must_set_role = False
        self._expired_locked: list[PendingAppend] = []
        self._finding_holders: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle = asyncio.Event()  # nothing is pending
        self._is_idle.set()
        self._is_send_scheduled = False
        self._is_closed = False

    async def append(
        self, caller: Caller, appends: Sequence[Append], max_content_bytes: int, actor: str
    ) -> AppendResult:
        """Append to one or several conversations, as soon as there is capacity.

        Raises:
            Forbidden, ConflictError, InputError: the append was refused.
            ConnectionLost: it may be stored.
            ConversationLocked, ServerUnreachable, StoreClosed: it was not sent, or a conversation was locked.
        """
        if self._is_closed:
            raise StoreClosed
        deadline = self._loop.time() + self._append_seconds - 2 * TICK_SECONDS
        append = PendingAppend(caller, appends, max_content_bytes, actor, deadline)
        self._pending[append] = None
        self._is_idle.clear()
        began = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        try:
            self._queue.add(append)
            if not append.unadmitted:
                self._backpressure.request(append)
            outcomes = await append.outcomes
            try:
                return append.result(outcomes)
            except Forbidden as error:  # by this attempt; an earlier one may have succeeded before access was revoked
                if append.may_be_stored:
                    raise _may_be_stored(append, error) from error
                raise
        finally:
            del self._pending[append]
            if not self._pending:
                self._is_idle.set()
            if append.is_queued:
                self._remove(append)
            self._backpressure.release(append)
            self._log_if_slow(append, self._loop.time() - began)
            del append  # an error in its result refers to this frame, in a cycle that holds the events

    def _log_if_slow(self, append: AppendRequest, seconds: float) -> None:
        """Log an append that took too long, whether it waited for others, for a lock or for the server."""
        if seconds > self._slow_seconds:
            fields = {"statement": "append", "milliseconds": round(seconds * 1000), "events": append.event_count}
            _log.info("an append took %.1f s", seconds, extra={"event": "statement_slow"} | fields)

    async def close(self) -> None:
        """Refuse the appends that are not in flight, wait for those that are, and close the connections."""
        self._is_closed = True
        self._refuse_waiting(StoreClosed())
        if self._opening is not None:
            await cancel_and_wait([self._opening])
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._is_idle.wait()
        for pipeline in list(self._pipelines):
            pipeline.close()
        if self._finding_holders is not None:
            await cancel_and_wait([self._finding_holders])
        await cancel_and_wait(list(self._encoding))
        await self._is_idle.wait()  # every append has its result now, and its task is about to run
        if self._timer is not None:
            self._timer.cancel()

    @property
    def pending_events(self) -> int:
        """The number of events that are admitted and not yet stored or refused."""
        return self._backpressure.events

    # Encode

    def _on_admitted(self, append: PendingAppend) -> None:
        slices = append.encode_slices()
        if self._encode_slice(append, slices):
            task = asyncio.create_task(self._encode_rest(append, slices), name="eventstore-encode")
            self._encoding.add(task)
            task.add_done_callback(self._encoding.discard)
        self._admit_followers(append)
        if self._backpressure.is_alone(append):
            self._send_groups()
        else:
            self._schedule_send()  # together with all that arrive in this iteration of the event loop

    def _admit_followers(self, append: PendingAppend) -> None:
        for follower in self._queue.next_to_admit(append):
            self._backpressure.request(follower)

    def _encode_slice(self, append: PendingAppend, slices: Iterator[None]) -> bool:
        """Encode the next events of an append. Return whether more follow."""
        try:
            for _ in slices:
                return True
            self._backpressure.count_bytes(append)
            self._queue.check_ready(append)
        except Exception as error:
            append.outcomes.set_exception(error)
        return False

    async def _encode_rest(self, append: PendingAppend, slices: Iterator[None]) -> None:
        has_more = True
        while has_more:
            await asyncio.sleep(0)
            has_more = not append.is_over and self._encode_slice(append, slices)
        self._schedule_send()

    # Send

    def _schedule_send(self) -> None:
        if not self._is_send_scheduled:
            self._is_send_scheduled = True
            self._loop.call_soon(self._send_groups)

    def _send_groups(self) -> None:
        """Send everything that can be sent now."""
        self._is_send_scheduled = False
        while (
            self._queue.is_ready and self._in_flight[False] < GROUPS_IN_FLIGHT and (pipeline := self._idle_pipeline())
        ):
            # Distribute the appends over the connections, so that client and server work at the same time.
            groups = min(GROUPS_IN_FLIGHT - self._in_flight[False], sum(each.is_idle for each in self._pipelines))
            group = self._queue.take(-(-len(self._pending) // groups), allow_large=not self._large_in_flight)
            if not group:
                break
            self._send(pipeline, group)
        while self._set_aside and self._in_flight[True] < LOCK_WAITERS and (pipeline := self._idle_pipeline()):
            append = self._set_aside.popleft()
            append.is_set_aside = False
            self._send(pipeline, [append], wait_for_locks=True)

    def _idle_pipeline(self) -> PipelinedConnection | None:
        for pipeline in self._pipelines:
            if pipeline.is_idle:
                return pipeline
        if self._opening is None and not self._is_closed:
            self._opening = independent_task(self._open_pipeline(), name="eventstore-connect")
        return None

    def _send(self, pipeline: PipelinedConnection, group: Group, *, wait_for_locks: bool = False) -> None:
        for append in group:
            append.is_in_flight = True
        self._in_flight[wait_for_locks] += 1
        self._large_in_flight += group[0].is_large
        self._metrics.batch_events.observe(sum(append.event_count for append in group))
        lock_wait_ms = 0
        if wait_for_locks:
            lock_wait_ms = max(1, min(LOCK_WAIT_MS, int(1000 * (group[0].deadline - self._loop.time()))))
        prelude: Prelude | None = (_SET_APPEND_ROLE, [self._role]) if self._must_set_role else None
        on_result = partial(
            self._on_result, group, pipeline, wait_for_locks=wait_for_locks, has_set_role=self._must_set_role
        )
        pipeline.send(*group_statement(group, lock_wait_ms), on_result, prelude)

    # Receive

    def _on_result(
        self,
        group: Group,
        pipeline: PipelinedConnection,
        answer: PGresult | psycopg.Error,
        *,
        wait_for_locks: bool,
        has_set_role: bool,
    ) -> None:
        self._in_flight[wait_for_locks] -= 1
        self._large_in_flight -= group[0].is_large
        for append in group:
            append.is_in_flight = False
        if not isinstance(answer, psycopg.Error):
            self._settle(group, read_outcomes(answer))
        elif not has_set_role and is_missing_role(answer):
            self._must_set_role = True
        elif wait_for_locks and answer.sqlstate == _LOCK_NOT_AVAILABLE:
            self._set_aside_or_end(group[0])
        else:
            self._settle_error(group, answer, is_broken=pipeline.is_broken)
        for append in reversed(group):
            if self._is_closed:
                self._refuse(append, StoreClosed())
            if not append.is_over:
                self._queue.check_ready(append, first=True)  # to be sent again
        for append in group:
            if append.is_over:
                self._remove(append)
        if self._queue.is_ready or self._set_aside:
            self._schedule_send()

    def _settle(self, group: Group, outcomes: Sequence[Outcome]) -> None:
        """Give each append its outcomes."""
        self._metrics.appended_events += sum(outcome.code == NEW for outcome in outcomes)
        first = 0
        for append in group:
            last = first + append.event_count
            own, first = outcomes[first:last], last
            if any(outcome.code == BUSY for outcome in own):
                self._set_aside_or_end(append)
                continue
            self._locked.difference_update(append.keys)
            if not append.outcomes.done():
                append.outcomes.set_result(own)

    def _set_aside_or_end(self, append: PendingAppend) -> None:
        """Set aside an append that found a conversation locked, unless it follows another that did; or end it."""
        self._locked.update(append.keys)
        if append.is_over:
            return
        if append.deadline <= self._loop.time():
            self._expire(append)
        elif not self._is_closed and not append.predecessors:
            append.is_set_aside = True
            self._set_aside.append(append)

    def _settle_error(self, group: Group, error: psycopg.Error, *, is_broken: bool) -> None:
        """Refuse the appends that caused an error. The others are sent again."""
        is_lost = is_broken or error.sqlstate is None
        # The append did not fill the queue of notifications: the next attempt finds it full, and does not notify.
        is_transient = is_lost or error.sqlstate == _NO_SUCH_STATEMENT or is_notify_queue_full(error)
        for append in group:
            append.may_be_stored |= is_lost
            append.lost_answers += is_transient
            if append.lost_answers > MAX_LOST_ANSWERS or (not is_transient and len(group) == 1):
                self._refuse(append, self._explain(translate(error)), error)
            else:
                append.is_sent_alone |= not is_transient

    # Refuse

    def _refuse(self, append: PendingAppend, error: EventStoreError, cause: Exception | None = None) -> None:
        """End an append with an error; with :class:`ConnectionLost` if it may be stored."""
        if append.outcomes.done():
            return
        if append.is_in_flight or append.may_be_stored:
            error, cause = _may_be_stored(append, error), error
        error.__cause__ = cause
        append.outcomes.set_exception(error)

    def _refuse_waiting(self, error: EventStoreError, seconds: float = 0.0) -> None:
        """Refuse the appends that are not in flight and have waited for at least so many seconds."""
        latest_deadline = self._loop.time() - seconds + self._append_seconds
        for append in self._pending:
            if append.deadline > latest_deadline:
                break
            if not append.is_in_flight:
                self._refuse(append, error)

    def _remove(self, append: PendingAppend) -> None:
        """Remove an append that has ended from the queues of its conversations."""
        if append.is_set_aside:
            append.is_set_aside = False
            self._set_aside.remove(append)
        self._admit_followers(append)
        self._queue.remove(append)
        if self._queue.is_ready:
            self._schedule_send()

    def _tick(self) -> None:
        """End the appends and the statements that have reached their deadlines."""
        self._timer = None
        now = self._loop.time()
        for append in self._pending:
            if append.deadline > now:
                break
            # A statement that waits for a lock is answered at the deadline: then the append gets the better error.
            if not (append.is_in_flight and append.deadline + TICK_SECONDS > now):
                self._expire(append)
        for pipeline in list(self._pipelines):
            if pipeline.sent_at is not None and pipeline.sent_at + self._append_seconds / 2 <= now:
                pipeline.give_up()
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
        elif self._locked.isdisjoint(append.keys):
            self._refuse(append, ServerUnreachable(_NOT_SENT.format(self._append_seconds)))
        else:
            append.is_expired = True
            self._remove(append)
            self._expired_locked.append(append)
            if self._finding_holders is None:
                self._finding_holders = independent_task(self._refuse_locked(), name="eventstore-lock-holders")

    async def _refuse_locked(self) -> None:
        """End the appends that waited for locks until their deadlines, with errors that name the holders."""
        while expired := self._expired_locked:
            self._expired_locked = []
            keys = list(dict.fromkeys(key for append in expired for key in append.keys))
            try:
                async with asyncio.timeout(FIND_HOLDERS_SECONDS), await self._connect_as_login() as connection:
                    holders = await _lock_holders(connection, keys)
            except Exception:
                holders = {}  # the append must end all the same
            for append in expired:
                key = next((key for key in append.keys if key in holders), append.keys[0])
                conversation_id = UUID(bytes=key[:16])
                self._refuse(append, ConversationLocked(conversation_id, self._append_seconds, holders.get(key, ())))
        self._finding_holders = None

    # Connect

    async def _open_pipeline(self) -> None:
        """Open a connection. If there is no other one, keep trying; each append waits ``connect_seconds`` for it."""
        try:
            await asyncio.sleep(self._open_again_at - self._loop.time())
            while True:
                try:
                    async with asyncio.timeout(self._append_seconds):
                        self._pipelines.append(await self._new_pipeline())
                    return
                except (EventStoreError, TimeoutError) as error:
                    self._open_again_at = self._loop.time() + RETRY_SECONDS
                    reason = error if isinstance(error, EventStoreError) else ServerUnreachable(_NO_ANSWER)
                    is_transient = isinstance(reason, ServerUnreachable | ConnectionLost)
                    if not self._pipelines:
                        self._refuse_waiting(self._explain(reason), self._connect_seconds if is_transient else 0.0)
                    if self._pipelines or all(append.is_over for append in self._pending):
                        return
                except Exception as error:
                    self._refuse_waiting(ServerError(f"no connection could be opened: {error!r}"))
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._opening = None
            self._schedule_send()

    async def _new_pipeline(self) -> PipelinedConnection:
        connection = await self._connect()
        self._role = connection.role.encode()
        try:
            with translated():
                await connection.execute(_KEEP_PLANS)
                pipeline = PipelinedConnection(connection, self._on_broken)
                await pipeline.prepare((APPEND_ONE, APPEND_GROUP))
        except BaseException:
            await connection.close()
            raise
        return pipeline

    def _on_broken(self, broken: PipelinedConnection) -> None:
        if broken in self._pipelines:
            self._pipelines.remove(broken)
        if broken.is_unanswered:  # then the server does not answer on the other connections either
            for pipeline in list(self._pipelines):
                pipeline.close()


def _may_be_stored(append: PendingAppend, reason: EventStoreError) -> ConnectionLost:
    ids = append.event_ids
    shown = ", ".join(map(str, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    return ConnectionLost(
        f"the append was sent, and its outcome is not known: {reason}; the events {shown} may be stored: "
        "append them again with the same ids, which is harmless",
        ids,
    )


async def _lock_holders(
    connection: Connection, conversations: Sequence[ConversationKey]
) -> dict[ConversationKey, list[LockHolder]]:
    """Return the transactions that hold the lock of each conversation that is locked now."""
    parameters = {
        "tenants": [key[16:].decode() for key in conversations],
        "conversations": [UUID(bytes=key[:16]) for key in conversations],
    }
    holders: dict[ConversationKey, list[LockHolder]] = {}
    for number, *holder in await (await connection.execute(_LOCK_HOLDERS, parameters)).fetchall():
        holders.setdefault(conversations[number], []).append(LockHolder(*holder))
    return holders
