"""A log that is kept in two logs, such as on a server and in memory while an application migrates.

The main one decides: writes go to it first, and reads return its results. If the other log rejects an append, its
events are queued and appended before any later ones of the same conversation. Differences are counted, logged, and kept
for a report.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from agent_manager.accepted_messages import Key
from agent_manager.storage import PAGE, LeaseStatus, Log
from eventstore import ANY, AppendResult, Event, ExpectedVersion, NewEvent
from eventstore.errors import EventStoreError, printable

T = TypeVar("T")

_log = logging.getLogger(__name__)

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
