"""Storage of a manager: the log of one tenant on a PostgreSQL server, in memory, or in both.

On a server, lists come from the read tables and from the events after them, so they contain everything that was
appended before, and no read waits for the workers. Tables and log are read under different roles, hence in two
statements: first the tables, then the log from their position.

Of two logs, the main one decides: writes go to it first, and reads return its results. If the other log rejects an
append, its events are queued and appended before any later ones of the same conversation. Differences are counted,
logged, and kept for a report.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int4, Int8

from agent_manager.conversation_fold import ConversationFold, Key
from agent_manager.errors import ManagerClosed
from eventstore import (
    ANY,
    Append,
    Appended,
    AppendResult,
    Caller,
    Event,
    EventStore,
    ExpectedVersion,
    MessageAdded,
    NewEvent,
    Settings,
)
from eventstore.append import AppendRequest, encode_expected
from eventstore.database.queries import query
from eventstore.errors import (
    ConnectionLost,
    ConversationIsDeleted,
    EventIdConflict,
    EventStoreError,
    RetryableError,
    ServerError,
    ServerUnreachable,
    WrongExpectedVersion,
    printable,
)
from eventstore.json_text import from_json, json_equal, to_json
from eventstore.member_order import MEMBER
from eventstore.read import RawRows, horizon
from eventstore.scope import checked_tenant
from projections.read_your_writes import fetch_at_least
from projections.reading import caller_of

T = TypeVar("T")

_log = logging.getLogger(__name__)

PAGE = 1000
"""Largest number of events of a conversation in one read."""
TAIL = 20_000
"""Events after the tables that a list reads. If the tables are further behind, it waits until they contain what the
tenant itself appended before these."""
WAIT_SECONDS = 60.0
MAX_TRACKED = 500
"""Conversations whose latest position is tracked; for all others, the highest one is."""

LISTED = ("message.added", "task.created", "task.status_changed", "task.artifact_added", "task.artifact_extended")
"""Types of the events that applications list."""

_UNLISTED = ("agent.registered", "agent.unregistered", "a2a.home", "a2a.push_notification")
"""Types of the events of conversations that no list has, as in projections/conversations.sql."""

_RETRY_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each retry of an append whose connection was lost."""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The status of a message's lease.

    Attributes:
        holder: the id of the manager that has the lease.
        expires_at: the time when it ends unless it is renewed; None for a lease that does not expire.
        version: the version of the conversation after the lease was taken.
    """

    holder: UUID
    expires_at: datetime | None
    version: int


class Log(Protocol):
    """The log of one tenant.

    Attributes:
        user: the user whose permissions apply; empty for the whole tenant.
        actor: the actor of all appended events; empty to keep each event's own.
    """

    tenant: str
    user: str = ""
    actor: str = ""

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """See :meth:`eventstore.EventStore.append`."""

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        """Return, of each of these conversations, at most ``limit`` events after its version, in order."""

    async def conversations(self) -> dict[UUID, int]:
        """Return the versions of the conversations, in the order in which they began."""

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        """Return the versions of the conversations that have tasks."""

    async def pending(self) -> set[Key]:
        """Return the messages that await an answer."""

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        """Return the latest of the listed events after a position, oldest first."""

    async def position(self) -> int:
        """Return the position up to which the log is final."""

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        """Take the leases of messages that no other holder has; return the status of all."""

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        """Renew leases; return those that the holder still has."""

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        """End leases that the holder has."""


class ClosableLog:
    """A log whose methods raise :class:`ManagerClosed` while it is closed."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.is_closed = False

    def __getattr__(self, name: str) -> Any:
        if self.is_closed:
            raise ManagerClosed
        return getattr(self._log, name)


def appended_event(tenant: str, event: NewEvent, place: Appended) -> Event:
    """Return an event as a read of the log would, from what was appended and its result."""
    # Copied through JSON, so that later changes to the caller's objects do not reach the event.
    content, metadata = (
        from_json(to_json(part, "content")) for part in (event.data.to_content(), event.metadata.to_content())
    )
    return Event(
        place.position, place.timestamp, place.version, event.schema_version, place.conversation_id, event.id, tenant,
        event.data.event_type, event.actor, content, metadata, b"", b"",  # salt and digest are the log's own
    )  # fmt: skip


async def append_persistently(store: EventStore, caller: Caller, appends: Sequence[Append]) -> AppendResult:
    """Append to conversations at once. If the server was unreachable, retry within the time limit of an append.

    Raises:
        ConnectionLost: one of the attempts was sent, so the events may be stored.
        EventStoreError: as :meth:`eventstore.EventStore.append_all` raises it.
    """
    loop, settings = asyncio.get_running_loop(), store.settings
    last_attempt_at = loop.time() + settings.append_seconds - settings.connect_timeout
    pauses = iter(_RETRY_PAUSES)
    lost: ConnectionLost | None = None
    while True:
        try:
            return await store.append_all(appends, tenant=caller.tenant, user=caller.user)
        except (RetryableError, ServerError) as error:
            if isinstance(error, ConnectionLost):
                lost = error
            pause = next(pauses, None) if isinstance(error, ConnectionLost | ServerUnreachable) else None
            if pause is None or loop.time() + pause > last_attempt_at:
                if lost is not None and lost is not error:
                    raise lost from error
                raise
            await asyncio.sleep(pause)


class AppendedPositions:
    """The highest positions that were appended for a tenant, by conversation.

    Reads wait until the tables contain these positions. The tables follow the log in partitions of the conversations,
    so a read only waits for the partitions to which its tenant appended.

    Attributes:
        by_conversation: the highest position of each of the latest conversations.
        earlier: the highest position of all others; 0 if there are none.
    """

    def __init__(self) -> None:
        self.by_conversation: dict[UUID, int] = {}
        self.earlier = 0

    @property
    def position(self) -> int:
        """The highest of all positions; 0 if nothing was appended."""
        return max(self.earlier, max(self.by_conversation.values(), default=0))

    def note(self, result: AppendResult) -> None:
        """Add the positions of appended events."""
        for conversation, position in {event.conversation_id: event.position for event in result.events}.items():
            self.by_conversation[conversation] = max(position, self.by_conversation.pop(conversation, 0))
        while len(self.by_conversation) > MAX_TRACKED:
            self.note_position(self.by_conversation.pop(next(iter(self.by_conversation))))

    def note_position(self, position: int) -> None:
        """Add a position of an unknown conversation."""
        self.earlier = max(self.earlier, position)


class ServerLog(Log):
    """The log on a server.

    Attributes:
        written: the positions that were appended through it.
        count: called with the number of events of each append.
    """

    def __init__(self, store: EventStore, tenant: str | None = None) -> None:
        self.store = store
        self.caller = caller_of(store, tenant, None)
        self.tenant = self.caller.tenant
        self.written = AppendedPositions()
        self.count: Callable[[int], None] = lambda events: None

    def acting_for(self, user: str | None, actor: str, count: Callable[[int], None]) -> ServerLog:
        """Return the same log with the permissions of a user, None for the whole tenant."""
        log = copy(self)
        log.caller, log.user, log.actor, log.count = Caller(self.tenant, user), user or "", actor, count
        return log

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """Append events; see :func:`append_persistently`."""
        if self.actor:
            events = [replace(event, actor=self.actor) for event in events]
        result = await append_persistently(self.store, self.caller, [Append(conversation_id, events, expected)])
        self.written.note(result)
        self.count(len(events))
        return result

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        parameters = {
            "tenant": self.tenant,
            "conversations": list(versions),
            "versions": [Int4(version) for version in versions.values()],
            "limit": Int4(limit),
        }
        text = query("agent_manager", "events_of")
        rows = await self.store.log(self.caller).fetch(text, parameters, cursor=RawRows)
        return [Event.from_row(row) for row in rows]

    async def conversations(self) -> dict[UUID, int]:
        rows, applied = await self._tables("conversations", ("conversations",))
        found = {conversation: (created_at, conversation, version) for conversation, version, created_at in rows}
        for conversation, version, created_at, _, is_listed in await self._tail("tail_conversations", applied):
            if is_listed or conversation in found:
                begun = found.get(conversation, (created_at,))[0]
                found[conversation] = (min(begun, created_at), conversation, version)
        return {conversation: version for _, conversation, version in sorted(found.values())}

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        rows, applied = await self._tables("task_conversations", ("conversations", "tasks"))
        found: dict[UUID, int] = dict(rows)
        for conversation, version, _, has_tasks, _ in await self._tail("tail_conversations", applied):
            if has_tasks or conversation in found:
                found[conversation] = version
        return found

    async def pending(self) -> set[Key]:
        rows, applied = await self._tables("pending", ("pending",))
        tail = await self._tail("tail_pending", applied)
        added, answered = ({(row[0], row[1]) for row in tail if row[2] is is_answer} for is_answer in (False, True))
        return ({(conversation, message) for conversation, message in rows} | added) - answered

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        read = self.store.read_log(
            after=after, types=LISTED, tenant=self.tenant, user=self.caller.user, backwards=True, limit=limit
        )
        return [event async for event in read][::-1]

    async def position(self) -> int:
        return await horizon(self.store.log(self.caller))

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        rows = await self._call_service("lease_answers", keys, holder, seconds=seconds)
        return {(conversation, message): LeaseStatus(*status) for conversation, message, *status in rows}

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        rows = await self._call_service("renew_answer_leases", keys, holder, seconds=seconds)
        return {(conversation, message) for conversation, message in rows}

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        await self._call_service("release_answers", keys, holder)

    async def _call_service(self, name: str, keys: Collection[Key], holder: UUID, **more: Any) -> list[TupleRow]:
        """Call an SQL function for leases, which only the service may call."""
        parameters = {
            "tenant": self.tenant,
            "conversations": [conversation for conversation, _ in keys],
            "messages": [message for _, message in keys],
            "holder": holder,
            **more,
        }
        return await self.store.pool.fetch(query("agent_manager", name), parameters, caller=Caller(self.tenant))

    async def _tables(self, name: str, projections: tuple[str, ...]) -> tuple[list[TupleRow], int]:
        """Return rows of the primary's tables, and the position up to which they contain the tenant's events."""
        text, parameters = query("agent_manager", name), {"tenant": self.tenant}
        at_least = max(0, self.written.position - TAIL)
        return await fetch_at_least(
            self.store, self.caller, text, parameters, projections, at_least, WAIT_SECONDS, on_primary=True
        )

    async def _tail(self, name: str, applied: int) -> list[TupleRow]:
        """Return rows of the log after a position."""
        parameters = {"tenant": self.tenant, "applied": Int8(applied), "tail": Int8(TAIL)}
        return await self.store.log(self.caller).fetch(query("agent_manager", name), parameters)


_EXISTS = encode_expected("EXISTS")
_ACCEPTED_WHEN_DELETED = ("conversation.reactivated", "conversation.unshared", "message.answered")
"""The same types as in the SQL function deleted_conversation_accepts, except for receipts of erasures."""


class MemoryLog(Log):
    """A log in memory, with the same checks and results as on a server. It is lost when the process ends."""

    def __init__(self, tenant: str = "default", max_content_bytes: int | None = None) -> None:
        self.tenant = checked_tenant(tenant)
        self._limit = max_content_bytes or Settings.model_fields["max_content_bytes"].default
        self._events: list[Event] = []
        self._events_of: dict[UUID, list[Event]] = {}
        self._folds: dict[UUID, ConversationFold] = {}
        self._by_id: dict[Key, Event] = {}
        self._leases: dict[Key, UUID] = {}

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        # Rejects what a server rejects.
        AppendRequest(Caller(self.tenant), [Append(conversation_id, events, expected)], self._limit).encode()
        stored = [self._by_id.get((conversation_id, event.id)) for event in events]
        new = [event for event, before in zip(events, stored, strict=True) if before is None]
        for event, before in zip(events, stored, strict=True):
            if before is not None and (differences := _differences(before, event)):
                raise EventIdConflict(conversation_id, event.id, differences)
        if new:
            self._check(conversation_id, new, expected)
        return AppendResult(
            [
                self._add(conversation_id, event)
                if before is None
                else Appended(
                    conversation_id, before.id, before.position, before.version, before.timestamp, is_new=False
                )
                for event, before in zip(events, stored, strict=True)
            ]
        )

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        return [
            event
            for conversation_id, version in versions.items()
            for event in self._events_of.get(conversation_id, [])[version : version + limit]
        ]

    async def conversations(self) -> dict[UUID, int]:
        return {each: len(events) for each, events in self._events_of.items() if events[0].event_type not in _UNLISTED}

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        return {each: fold.version for each, fold in self._folds.items() if fold.tasks}

    async def pending(self) -> set[Key]:
        return {
            (fold.id, each) for fold in self._folds.values() for each in fold.requests.keys() - fold.outcomes.keys()
        }

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        listed = [event for event in self._events[after:] if event.event_type in LISTED]
        return listed if limit is None else listed[max(0, len(listed) - limit) :]

    async def position(self) -> int:
        return len(self._events)

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        # Leases do not expire, because no holder outlives the log or ends before it.
        return {
            key: LeaseStatus(self._leases.setdefault(key, holder), None, len(self._events_of.get(key[0], ())))
            for key in keys
        }

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        return {key for key in keys if self._leases.get(key) == holder}

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        for key in await self.renew_leases(keys, holder, 0):
            del self._leases[key]

    def _check(self, conversation_id: UUID, new: Sequence[NewEvent], expected: ExpectedVersion) -> None:
        fold = self._folds.get(conversation_id)
        version, is_deleted = (0, False) if fold is None else (fold.version, fold.is_deleted)
        for event_type in (event.data.event_type for event in new):
            if is_deleted and event_type not in _ACCEPTED_WHEN_DELETED:
                raise ConversationIsDeleted(conversation_id)
            is_deleted = event_type == "conversation.deleted" or (
                is_deleted and event_type != "conversation.reactivated"
            )
        wanted = encode_expected(expected)
        if (wanted >= 0 and wanted != version) or (wanted == _EXISTS and version == 0):
            raise WrongExpectedVersion(conversation_id, expected, version)

    def _add(self, conversation_id: UUID, event: NewEvent) -> Appended:
        events = self._events_of.setdefault(conversation_id, [])
        now = datetime.now(UTC)
        place = Appended(conversation_id, event.id, len(self._events) + 1, len(events) + 1, now, is_new=True)
        stored = appended_event(self.tenant, event, place)
        self._events.append(stored)
        events.append(stored)
        self._by_id[conversation_id, event.id] = stored
        self._folds.setdefault(conversation_id, ConversationFold(conversation_id)).apply(stored)
        return place


def _differences(stored: Event, event: NewEvent) -> str:
    """Return the members in which two events of one id differ, as the server's function ``event_differences`` does."""
    stored_metadata = _without((MEMBER, "traceparent"), stored.raw_metadata)
    metadata = _without((MEMBER, "traceparent"), from_json(to_json(event.metadata.to_content(), "metadata")))
    stored_content, content = stored.content, from_json(to_json(event.data.to_content(), "content"))
    if isinstance(event.data, MessageAdded):
        stored_content, content = _without(("sent_order",), stored_content), _without(("sent_order",), content)
    pairs = {
        "event_type": (stored.event_type, event.data.event_type),
        "schema_version": (stored.schema_version, event.schema_version),
        "actor": (stored.actor, event.actor),
        "content": (stored_content, content),
    }
    for key in sorted(stored_metadata.keys() | metadata.keys()):
        pairs[f"metadata.{key}"] = (stored_metadata.get(key), metadata.get(key))
    return ", ".join(name for name, (before, now) in pairs.items() if not json_equal(before, now))


def _without(names: Sequence[str], members: Any) -> Any:
    if not isinstance(members, dict):
        return members
    return {key: value for key, value in members.items() if key not in names}


MAX_KEPT = 1000
"""Latest differences that are kept for the report; all are counted."""


class Differences:
    """Counts of comparisons and differences.

    Attributes:
        compared: number of comparisons, by operation: ``events``, ``conversations``, ``pending``, ``append`` …
        differing: number of differences, by operation.
        not_compared: number of reads that a concurrent write made incomparable, by operation.
        latest: the latest differences, newest last: the operation, the conversation (None for a list of all), the
            result of the main log, and that of the other log or its error; both shortened.
    """

    def __init__(self) -> None:
        self.compared: Counter[str] = Counter()
        self.differing: Counter[str] = Counter()
        self.not_compared: Counter[str] = Counter()
        self.latest: deque[dict[str, str | None]] = deque(maxlen=MAX_KEPT)

    @property
    def count(self) -> int:
        """The number of differences."""
        return self.differing.total()

    def compare(self, what: str, conversation_id: Any, main: Any, other: Any) -> None:
        """Compare two results."""
        self.compared[what] += 1
        if main != other:
            self.add(what, conversation_id, main, other)

    def add(self, what: str, conversation_id: Any, main: Any, other: Any) -> None:
        """Count a difference."""
        self.differing[what] += 1
        shown = None if conversation_id is None else str(conversation_id)
        results = {"main": printable(str(main)), "other": printable(str(other))}
        self.latest.append({"what": what, "conversation_id": shown, **results})
        fields = {"event": "storages_differ", "conversation_id": shown, "compared": what}
        _log.warning("%s differ in conversation %s", what, shown, extra=fields)

    def report(self) -> dict[str, Any]:
        """Return all counts and the latest differences as plain JSON."""
        return {
            "differences": self.count,
            "compared": dict(self.compared),
            "differing": dict(self.differing),
            "not_compared": dict(self.not_compared),
            "latest": list(self.latest),
        }

    def __str__(self) -> str:
        """Return a summary, and the latest differences, one per line."""
        lines = [f"{self.compared.total()} compared, {self.count} differed, {self.not_compared.total()} not compared"]
        lines += [
            f"{each['what']} of {each['conversation_id'] or 'all'}: {each['main']}; the other side: {each['other']}"
            for each in self.latest
        ]
        return "\n".join(lines)


class DualWriteLog(Log):
    """A log that is kept in two logs."""

    def __init__(self, main: Log, other: Log, differences: Differences) -> None:
        self.tenant, self.user, self.actor = main.tenant, main.user, main.actor
        self._main = main
        self._other = other
        self._differences = differences
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._missing: dict[UUID, list[NewEvent]] = {}
        self._active_writes = 0
        self._finished_writes = 0
        self._finished_writes_of: Counter[UUID] = Counter()

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        async with self._write(conversation_id):
            result = await self._main.append(conversation_id, events, expected)
            new = [event for event, place in zip(events, result.events, strict=True) if place.is_new]
            if new:
                self._missing.setdefault(conversation_id, []).extend(new)
            await self._append_missing(conversation_id, result.version)
            return result

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        before = {each: self._finished_writes_of[each] for each in versions}
        busy = {each for each in versions if each in self._locks}
        events = await self._main.events_of(versions, limit)
        main = _by_conversation(events)
        other = _by_conversation(await self._from_other(self._other.events_of(versions, limit), []))
        for each in versions:
            if each in busy or each in self._locks or before[each] != self._finished_writes_of[each]:
                self._differences.not_compared["events"] += 1
            else:
                self._differences.compare("events", each, main.get(each, []), other.get(each, []))
        return events

    async def conversations(self) -> dict[UUID, int]:
        return await self._read("conversations", lambda log: log.conversations())

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        return await self._read("conversations with tasks", lambda log: log.conversations_with_tasks())

    async def pending(self) -> set[Key]:
        return await self._read("pending", lambda log: log.pending())

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        if after:  # positions are those of the main log, so only reads from the beginning can be compared
            return await self._main.latest(after, limit)
        return await self._read(
            "latest events", lambda log: log.latest(0, limit), lambda events: set(map(_identity, events))
        )

    async def position(self) -> int:
        return await self._main.position()

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        # Other processes can only hold leases on the server, whichever log is the main one.
        main = await self._main.lease_answers(keys, holder, seconds)
        other = await self._from_other(self._other.lease_answers(keys, holder, seconds), main)
        elsewhere = {key: status for key, status in other.items() if status.holder != holder}
        return {
            key: replace(elsewhere[key], version=status.version) if key in elsewhere else status
            for key, status in main.items()
        }

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        main = await self._main.renew_leases(keys, holder, seconds)
        return main & await self._from_other(self._other.renew_leases(keys, holder, seconds), main)

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        await self._main.release_answers(keys, holder)
        await self._from_other(self._other.release_answers(keys, holder), None)

    async def append_all_missing(self) -> None:
        """Append the events that the other log lacks, as far as it accepts them."""
        for conversation_id in list(self._missing):
            async with self._write(conversation_id):
                await self._append_missing(conversation_id, None)

    async def _append_missing(self, conversation_id: UUID, version: int | None) -> None:
        missing = self._missing.get(conversation_id)
        if not missing:
            return
        try:
            result = await self._other.append(conversation_id, missing)
        except EventStoreError as error:
            self._differences.add("append", conversation_id, f"{len(missing)} event(s)", error)
            return
        del self._missing[conversation_id]
        if version is not None:
            self._differences.compare("append", conversation_id, version, result.version)

    async def _read(
        self, what: str, read: Callable[[Log], Awaitable[T]], comparable: Callable[[T], Any] = lambda result: result
    ) -> T:
        """Return a list from the main log; compare it unless there was a write meanwhile."""
        finished, active = self._finished_writes, self._active_writes
        main = await read(self._main)
        other = await self._from_other(read(self._other), None)
        if active or self._active_writes or finished != self._finished_writes:
            self._differences.not_compared[what] += 1
        elif other is not None:
            self._differences.compare(what, None, comparable(main), comparable(other))
        return main

    async def _from_other(self, read: Awaitable[T], default: T) -> T:
        try:
            return await read
        except EventStoreError as error:
            self._differences.add("read", None, "read", error)
            return default

    @asynccontextmanager
    async def _write(self, conversation_id: UUID) -> AsyncIterator[None]:
        """Allow one writer of a conversation at a time, so that both logs have its events in the same order."""
        self._active_writes += 1
        try:
            async with self._locks.setdefault(conversation_id, asyncio.Lock()):
                yield
        finally:
            self._active_writes -= 1
            self._finished_writes += 1
            self._finished_writes_of[conversation_id] += 1


def _by_conversation(events: Iterable[Event]) -> dict[UUID, list[Any]]:
    found: defaultdict[UUID, list[Any]] = defaultdict(list)
    for event in events:
        found[event.conversation_id].append((event.version, *_identity(event), event.actor, event.content))
    return found


def _identity(event: Event) -> tuple[Any, ...]:
    return event.conversation_id, event.id, event.event_type


async def copy_log(source: Log, target: Log, unlisted: Iterable[UUID] = ()) -> None:
    """Copy all conversations, and ``unlisted`` ones, event by event, from one log to an empty one."""
    for conversation_id in [*await source.conversations(), *unlisted]:
        version = 0
        while events := await source.events_of({conversation_id: version}):
            await target.append(conversation_id, [_copied(event) for event in events])
            version = events[-1].version


def _copied(event: Event) -> NewEvent:
    metadata = event.metadata.model_copy(update={"occurred_at": event.occurred_at})
    return NewEvent(event.data, event.id, event.actor, metadata)
