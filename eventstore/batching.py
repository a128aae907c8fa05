"""Group commit: pending appends are sent together, bounded by back-pressure.

If there is no capacity, appends wait, those of a tenant in FIFO order, and their events are not serialised until they
are admitted. One conversation may use an eighth of the capacity, so a conversation that another process has locked does
not block the others; one tenant may use half of it, and tenants are admitted in turn, so none blocks the others.

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

What waits is bounded (:mod:`eventstore.batching`).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from itertools import zip_longest
from uuid import UUID

import psycopg
from psycopg.pq.abc import PGresult

from eventstore.append import ANY_VERSION, BUSY, ID, MAX_CONVERSATIONS, SLICE_EVENTS, TYPE, Append, Batch, Outcome, Row
from eventstore.concurrency import cancel_and_wait
from eventstore.database import binary_format
from eventstore.database.binary_format import with_length, without_length
from eventstore.database.connection import Connection
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
from eventstore.ids import parse_uuid
from eventstore.scope import Caller

# Back-pressure: bounds the events and bytes that wait to be appended, in total and per conversation

MAX_WAITING_EVENTS = 20_000
MAX_WAITING_BYTES = 32 * 1024 * 1024
CONVERSATION_PART, TENANT_PART = 8, 2
"""One conversation, and one tenant, may use one part of so many."""


class Backpressure:
    """Capacity for the appends of one event loop."""

    def __init__(self, on_admitted: Callable[[PendingAppend], None]) -> None:
        """Create a queue.

        Args:
            on_admitted: called once for each append, when there is capacity for it.
        """
        self._on_admitted = on_admitted
        self._events = 0
        self._bytes = 0
        self._events_of: Counter[ConversationKey | str] = Counter()
        """By conversation, and by tenant."""
        self._waiting: deque[PendingAppend] = deque()

    def request(self, append: PendingAppend) -> None:
        """Admit an append as soon as there is capacity for it, possibly at once. :meth:`release` must follow.

        An append larger than the total capacity is admitted when nothing else is pending.
        """
        if self._waiting:
            self._waiting.append(append)
            self._admit_waiting()  # only another conversation may be full
        elif self._fits(append):
            self._admit(append)
        else:
            self._waiting.append(append)

    def weigh(self, append: PendingAppend) -> None:
        """Count the bytes of an append, which are known once it is prepared."""
        if append.is_admitted:
            self._bytes += append.size
            append.is_weighed = True

    def is_alone(self, append: PendingAppend) -> bool:
        """Return whether no other append is admitted."""
        return self._events == append.events

    def release(self, append: PendingAppend) -> None:
        """Return the capacity of an append, if it was admitted, and admit those that now fit."""
        if append.is_admitted:
            append.is_admitted = False
            self._events -= append.events
            if append.is_weighed:
                self._bytes -= append.size
            for key in _keys(append):
                self._events_of[key] -= append.events
                if not self._events_of[key]:
                    del self._events_of[key]
        if self._waiting:
            self._admit_waiting()

    def _fits(self, append: PendingAppend) -> bool:
        if not self._events:
            return True
        if self._events + append.events > MAX_WAITING_EVENTS or self._bytes > MAX_WAITING_BYTES:
            return False
        return self._has_part(append.tenant, append.events, TENANT_PART) and all(
            self._has_part(key, append.events, CONVERSATION_PART) for key in append.conversations
        )

    def _has_part(self, key: ConversationKey | str, events: int, part: int) -> bool:
        """Return whether a conversation or tenant that has nothing pending, or little enough, may have more."""
        return not (pending := self._events_of[key]) or pending + events <= MAX_WAITING_EVENTS // part

    def _admit(self, append: PendingAppend) -> None:
        append.is_admitted = True
        self._events += append.events
        for key in _keys(append):
            self._events_of[key] += append.events
        self._on_admitted(append)

    def _admit_waiting(self) -> None:
        """Admit what fits, tenants in turn. No append overtakes another of the same conversation."""
        waiting, self._waiting = in_turn(self._waiting), deque()
        full: set[ConversationKey] = set()
        while waiting and (
            not self._events or (self._events < MAX_WAITING_EVENTS and self._bytes <= MAX_WAITING_BYTES)
        ):
            append = waiting.popleft()
            if append.is_over:
                continue
            if full.isdisjoint(append.conversations) and self._fits(append):
                self._admit(append)
            else:
                full.update(append.conversations)
                self._waiting.append(append)
        self._waiting.extend(waiting)


def _keys(append: PendingAppend) -> list[ConversationKey | str]:
    return [append.tenant, *append.conversations]


# Batching: which of the pending appends are sent together, as which statement, and the outcome of each

ConversationKey = bytes
"""Id of a conversation, followed by the name of its tenant."""

GROUP_EVENTS = 1000
GROUP_BYTES = 4 * 1024 * 1024
GROUP_CONVERSATIONS = max(128, MAX_CONVERSATIONS)
"""Each takes a lock, and the server's table of locks is finite."""

APPEND_ONE = Statement(
    b"eventstore_append_one",
    query("eventstore", "append_one").encode(),
    (
        binary_format.TEXT,
        binary_format.UUID,
        binary_format.INT4,
        binary_format.UUID,
        binary_format.TEXT,
        binary_format.INT2,
        binary_format.TEXT,
        binary_format.JSONB,
        binary_format.JSONB,
        binary_format.INT4,
        binary_format.TEXT,
    ),
)
APPEND_GROUP = Statement(
    b"eventstore_append_group",
    query("eventstore", "append_group").encode(),
    (
        binary_format.TEXT_ARRAY,
        binary_format.UUID_ARRAY,
        binary_format.INT4_ARRAY,
        binary_format.INT4_ARRAY,
        binary_format.INT4_ARRAY,
        binary_format.UUID_ARRAY,
        binary_format.TEXT_ARRAY,
        binary_format.INT2_ARRAY,
        binary_format.TEXT_ARRAY,
        binary_format.JSONB_ARRAY,
        binary_format.JSONB_ARRAY,
        binary_format.TEXT_ARRAY,
        binary_format.INT4,
    ),
)
STATEMENTS = (APPEND_ONE, APPEND_GROUP)
SET_APPEND_ROLE = Statement(
    b"eventstore_set_append_role", query("eventstore", "set_append_role").encode(), (binary_format.TEXT,)
)
"""For the transaction of one of them."""


def keys_of(tenant: str, appends: Sequence[Append]) -> list[ConversationKey]:
    """Return the conversations of an append.

    Raises:
        InvalidId: the id of one of them is not a UUID.
    """
    suffix = tenant.encode()
    return [parse_uuid(append.conversation_id, "conversation_id").bytes + suffix for append in appends]


class PendingAppend:
    """An append whose outcome is not known yet.

    Attributes:
        batch: its serialised events, once it is prepared.
        conversations: the conversations that it writes to.
        events: number of events.
        size: serialised size in bytes, once it is prepared.
        deadline: when it ends at the latest, by the clock of the event loop.
        result: the outcomes of its events; cancelled if the caller gave up.
        is_prepared: its events are checked and serialised.
        tenant: to whom its conversations belong.
        is_admitted: it holds capacity (see :mod:`eventstore.batching`).
        is_weighed: the capacity that it holds includes its bytes.
        is_given_up: its error is being made, so it must not be sent any more.
        is_alone: it is sent by itself, because it was sent in a group that failed.
        is_in_flight: it was sent, and the answer is not there yet.
        may_be_stored: it was sent, and the answer was lost.
        losses: how often the answer was lost, or could not be given.
    """

    __slots__ = (
        "_batch", "_given", "conversations", "deadline", "events", "is_admitted", "is_alone", "is_given_up",
        "is_in_flight", "is_weighed", "losses", "may_be_stored", "result", "size", "tenant",
    )  # fmt: skip

    def __init__(
        self,
        given: tuple[str, Sequence[Append], int, str, str],
        deadline: float,
        result: asyncio.Future[Sequence[Outcome]],
    ) -> None:
        """Create an append that is not prepared.

        Args:
            given: what its :class:`~eventstore.append.Batch` is made of.
        """
        self.tenant, appends, *_ = self._given = given
        self.conversations: Sequence[ConversationKey] = keys_of(self.tenant, appends)
        self.events = sum(len(append.events) for append in appends)
        self.deadline = deadline
        self.result = result
        self.size = 0
        self.losses = 0
        self.is_admitted = self.is_weighed = self.is_alone = self.is_given_up = self.is_in_flight = False
        self.may_be_stored = False
        self._batch: Batch | None = None

    @property
    def batch(self) -> Batch:
        assert self._batch is not None
        return self._batch

    @property
    def is_prepared(self) -> bool:
        return self._batch is not None

    def prepare(self) -> None:
        """Check and serialise the events. Raises what :class:`~eventstore.append.Batch` raises."""
        self._keep(Batch(*self._given))

    async def prepare_in_slices(self) -> None:
        """Prepare, a few events at a time."""
        self._keep(await Batch.in_slices(*self._given))

    def _keep(self, batch: Batch) -> None:
        self._batch = batch
        self.size = batch.size

    @property
    def is_large(self) -> bool:
        """Whether it has more events than a group of several may have."""
        return self.events > GROUP_EVENTS

    @property
    def is_over(self) -> bool:
        """Whether it must not be sent any more."""
        return self.is_given_up or self.result.done()


_DELETIONS = frozenset(with_length(word) for word in (b"conversation.deleted", b"conversation.reactivated"))

Group = list[PendingAppend]


def in_turn(queue: deque[PendingAppend]) -> deque[PendingAppend]:
    """Return the appends so that tenants take turns, the one that has waited longest first.

    Those of one tenant, and with them those of one conversation, keep their order.
    """
    by_tenant: dict[str, deque[PendingAppend]] = {}
    for append in queue:
        by_tenant.setdefault(append.tenant, deque()).append(append)
    if len(by_tenant) < 2:
        return queue
    rounds = zip_longest(*by_tenant.values())
    return deque(append for one_of_each in rounds for append in one_of_each if append is not None)


def next_group(
    queue: deque[PendingAppend], reserved: Container[ConversationKey], most: int, *, takes_large: bool = True
) -> Group:
    """Take from the queue, in its order, the appends that can be sent together now.

    Args:
        most: appends in the group.
        takes_large: whether it may be an append that is larger than a group; if not, that stays in the queue.

    An append that is not prepared stays in the queue, and with it those that follow it in its conversations.

    A conversation belongs to one append of a group, or to several that all expect ANY. An append to a reserved
    conversation stays in the queue, and no append overtakes another of the same conversation.
    """
    if len(queue) == 1 and not reserved and not queue[0].is_over and queue[0].is_prepared:
        return [queue.popleft()] if takes_large or not queue[0].is_large else []
    group: Group = []
    kept: list[PendingAppend] = []
    blocked: set[ConversationKey] = set()
    taken: dict[ConversationKey, list[PendingAppend]] = {}
    events = size = 0
    while queue:
        append = queue[0]
        if append.is_over:
            queue.popleft()
            continue
        if not append.is_prepared or (append.is_large and not takes_large):
            blocked.update(append.conversations)
            kept.append(queue.popleft())
            continue
        if group and (
            append.is_alone
            or len(group) == most
            or events + append.events > GROUP_EVENTS
            or size + append.size > GROUP_BYTES
            or len(taken) + len(append.conversations) > GROUP_CONVERSATIONS
        ):
            break
        queue.popleft()
        for key in append.conversations:
            if key in reserved or key in blocked or (key in taken and not _may_share(key, taken[key], append)):
                blocked.update(append.conversations)
                kept.append(append)
                break
        else:
            for key in append.conversations:
                taken.setdefault(key, []).append(append)
            group.append(append)
            events += append.events
            size += append.size
            if append.is_alone:
                break
    queue.extendleft(reversed(kept))
    return group


def _may_share(key: ConversationKey, those: list[PendingAppend], other: PendingAppend) -> bool:
    """Return whether appends can follow each other in a conversation.

    They can if they are for one user, all expect ANY, and no event is in two of them. The later one must not succeed if
    the earlier one is found locked, so it writes to all conversations that the earlier one writes to. And one that
    deletes or reactivates the conversation is sent without others to it: its state decides whether they are refused.
    """
    if any(row[TYPE] in _DELETIONS for one in (*those, other) for row in one.batch.rows):
        return False
    if any(one.batch.user != other.batch.user for one in those):
        return False
    if any(not set(one.conversations).issubset(other.conversations) for one in those if len(one.conversations) > 1):
        return False
    targets = [one.conversations.index(key) for one in (*those, other)]
    if any(one.batch.expected[target] != ANY_VERSION for one, target in zip((*those, other), targets, strict=True)):
        return False
    ids = {row[ID] for row in other.batch.rows}
    return all(row[ID] not in ids for one in those for row in one.batch.rows)


def statement(group: Group, patience: int) -> tuple[Statement, list[bytes]]:
    """Return the statement that appends the group, and its parameters.

    Args:
        patience: milliseconds to wait for a conversation that is locked; 0 means not to wait.
    """
    first = group[0].batch
    if len(group) == 1 and len(first.rows) == 1 and len(first.conversations) == 1:
        key = group[0].conversations[0]
        event_id, *others = (without_length(value) for value in first.rows[0])
        head = [key[16:], key[:16], binary_format.int4(first.expected[0]), event_id]
        return APPEND_ONE, [*head, *others, binary_format.int4(patience), first.user.encode()]
    targets: dict[ConversationKey, int] = {}
    expected: list[int] = []
    append_nos: list[int] = []
    conversation_nos: list[int] = []
    rows: list[Row] = []
    users: list[bytes] = []
    for number, append in enumerate(group):
        batch = append.batch
        places = []
        for key, version in zip(append.conversations, batch.expected, strict=True):
            place = targets.get(key)
            if place is None:
                place = targets[key] = len(targets) + 1
                expected.append(version)
            places.append(place)
        rows += batch.rows
        users += [with_length(batch.user.encode())] * len(batch.rows)
        append_nos += [number] * len(batch.rows)
        conversation_nos += [places[target] for target in batch.targets]
    ids, types, versions, actors, contents, metadatas = zip(*rows, strict=True)
    return APPEND_GROUP, [
        binary_format.array(binary_format.TEXT, [with_length(key[16:]) for key in targets]),
        binary_format.array(binary_format.UUID, [with_length(key[:16]) for key in targets]),
        binary_format.int4_array(expected),
        binary_format.int4_array(append_nos),
        binary_format.int4_array(conversation_nos),
        binary_format.array(binary_format.UUID, ids),
        binary_format.array(binary_format.TEXT, types),
        binary_format.array(binary_format.INT2, versions),
        binary_format.array(binary_format.TEXT, actors),
        binary_format.array(binary_format.JSONB, contents),
        binary_format.array(binary_format.JSONB, metadatas),
        binary_format.array(binary_format.TEXT, users),
        binary_format.int4(patience),
    ]


def outcomes(result: PGresult) -> list[Outcome]:
    """Return the outcome of each event, in the order in which they were sent."""
    value = result.get_value
    if result.nfields == 1:  # a row as one value, which is cheaper for a single row
        return [Outcome._make(binary_format.members(value(0, 0) or b""))]
    return [
        Outcome(value(number, 0), value(number, 1), value(number, 2), value(number, 3), value(number, 4))
        for number in range(result.ntuples)
    ]


# Finds out which transactions hold the locks of conversations, for the error of an append that waited in vain

_LOCK_HOLDERS = query("eventstore", "lock_holders")


async def lock_holders(
    connection: Connection, conversations: Sequence[ConversationKey]
) -> dict[ConversationKey, list[LockHolder]]:
    """Return the holders of each conversation that is locked now.

    Args:
        connection: of the login itself, which sees more of its other sessions than a role of the store.
    """
    parameters = {
        "tenants": [key[16:].decode() for key in conversations],
        "conversations": [UUID(bytes=key[:16]) for key in conversations],
    }
    holders: dict[ConversationKey, list[LockHolder]] = {}
    for number, *holder in await (await connection.execute(_LOCK_HOLDERS, parameters)).fetchall():
        holders.setdefault(conversations[number], []).append(LockHolder(*holder))
    return holders


# Group commit: appends that arrive while others are in flight are sent together, in one statement and one transaction

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
        self._pipelines: list[PipelinedConnection] = []
        self._role = b""
        self._needs_role = False
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
            await cancel_and_wait([self._opening])
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._is_idle.wait()
        for pipeline in list(self._pipelines):
            pipeline.close()
        if self._explaining is not None:
            await cancel_and_wait([self._explaining])
        await cancel_and_wait(list(self._preparing))
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
        while self._queue and self._in_flight[False] < GROUPS_IN_FLIGHT and (pipeline := self._idle_pipeline()):
            ways = min(GROUPS_IN_FLIGHT - self._in_flight[False], sum(pipeline.is_idle for pipeline in self._pipelines))
            share = -(-len(self._queue) // ways)  # as much on each, so that client and server work at the same time
            group = next_group(self._queue, self._reserved, share, takes_large=not self._large_in_flight)
            if not group:
                break
            self._send(pipeline, group)
        while self._set_aside and self._in_flight[True] < LOCK_WAITERS and (pipeline := self._idle_pipeline()):
            self._send(pipeline, [self._set_aside.popleft()], waits=True)

    def _idle_pipeline(self) -> PipelinedConnection | None:
        for pipeline in self._pipelines:
            if pipeline.is_idle:
                return pipeline
        if self._opening is None and not self._is_closed:
            self._opening = asyncio.create_task(self._open_pipeline(), name="eventstore-lane")
        return None

    def _send(self, pipeline: PipelinedConnection, group: Group, *, waits: bool = False) -> None:
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
        said: Prelude | None = (SET_APPEND_ROLE, [self._role]) if self._needs_role else None
        pipeline.send(
            *statement(group, milliseconds),
            lambda answer: self._answered(group, answer, pipeline, waits=waits, role_statement=said is not None),
            said,
        )

    def _answered(
        self,
        group: Group,
        answer: PGresult | psycopg.Error,
        pipeline: PipelinedConnection,
        *,
        waits: bool,
        role_statement: bool,
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
        elif not role_statement and is_missing_role(answer):
            self._needs_role = True
            again += group
        elif waits and answer.sqlstate == _LOCK_TIMEOUT:
            self._set_locked_aside(group[0], again)
        else:
            self._failed(group, answer, pipeline, again)
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

    def _failed(
        self, group: Group, error: psycopg.Error, pipeline: PipelinedConnection, again: list[PendingAppend]
    ) -> None:
        is_unknown = pipeline.is_broken or error.sqlstate is None
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

    async def _open_pipeline(self) -> None:
        """Open a connection. If there is none at all, go on trying; each append waits ``connect_seconds`` for it."""
        try:
            await asyncio.sleep(self._open_again_at - self._loop.time())
            while True:
                try:
                    async with asyncio.timeout(self._append_seconds):
                        self._pipelines.append(await self._new_pipeline())
                    return
                except (EventStoreError, TimeoutError) as error:
                    self._open_again_at = self._loop.time() + RECONNECT_SECONDS
                    known = error if isinstance(error, EventStoreError) else ServerUnreachable(_NO_ANSWER)
                    is_passing = isinstance(known, ServerUnreachable | ConnectionLost)
                    if not self._pipelines:
                        self._refuse_waiting(self._why(known), self._connect_seconds if is_passing else 0.0)
                    if self._pipelines or not (self._queue or self._set_aside):
                        return
                except Exception as error:
                    self._refuse_waiting(ServerError(f"no connection could be opened: {error!r}"))
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            self._opening = None
            self._be_due()

    async def _new_pipeline(self) -> PipelinedConnection:
        connection, role = await self._connect()
        self._role = role.encode()
        try:
            with translated():
                await connection.execute(_KEEP_PLANS)
        except BaseException:
            await connection.close()
            raise
        pipeline = PipelinedConnection(connection, self._forget)
        try:
            with translated():
                await pipeline.prepare(STATEMENTS)
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    def _forget(self, broken: PipelinedConnection) -> None:
        if broken in self._pipelines:
            self._pipelines.remove(broken)
        if broken.is_unanswered:  # then the others lead nowhere, either
            for pipeline in list(self._pipelines):
                pipeline.close()


def _may_be_stored(append: PendingAppend, reason: EventStoreError) -> ConnectionLost:
    ids = append.batch.event_ids
    shown = ", ".join(map(str, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    return ConnectionLost(
        f"the append was sent, and its outcome is not known: {reason}; the events {shown} may be stored: "
        "append them again with the same ids, which is harmless",
        ids,
    )
