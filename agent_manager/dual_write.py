"""Dual writes, to PostgreSQL and to memory, and the differences between the two."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from agent_manager.storage import PAGE, Key, LeaseStatus, Log, PendingRow
from eventstore import ANY, AppendResult, Event, ExpectedVersion, NewEvent
from eventstore.errors import EventStoreError, printable

# What differed between two logs that should hold the same, counted and kept for a report

log = logging.getLogger(__name__)

KEPT = 1000
"""Of the latest differences; all are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference.

    Attributes:
        what: was read or written: ``events``, ``conversations``, ``pending``, ``append`` …
        conversation_id: in the log; None where it is one of a list.
        main: what the side that is read from gave, cut to what can be shown.
        other: what the other side gave, or why it failed.
    """

    what: str
    conversation_id: str | None
    main: str
    other: str


class Differences:
    """Counts of what was compared, and of what of it differed.

    Attributes:
        compared: by what was read or written.
        differing: the same, of those that differed.
        not_compared: reads during which somebody wrote what they read.
        latest: the latest differences, newest last.
    """

    def __init__(self) -> None:
        self.compared: Counter[str] = Counter()
        self.differing: Counter[str] = Counter()
        self.not_compared: Counter[str] = Counter()
        self.latest: deque[Difference] = deque(maxlen=KEPT)

    @property
    def count(self) -> int:
        """How many there were."""
        return self.differing.total()

    def compare(self, what: str, conversation_id: Any, main: Any, other: Any) -> None:
        """Compares what two sides gave."""
        self.compared[what] += 1
        if main != other:
            self.add(what, conversation_id, main, other)

    def add(self, what: str, conversation_id: Any, main: Any, other: Any) -> None:
        """Counts a difference."""
        self.differing[what] += 1
        shown = None if conversation_id is None else str(conversation_id)
        difference = Difference(what, shown, printable(str(main)), printable(str(other)))
        self.latest.append(difference)
        log.warning("%s differ in conversation %s: %s, and %s", what, shown, difference.main, difference.other)

    def report(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {
            "differences": self.count,
            "compared": dict(self.compared),
            "differing": dict(self.differing),
            "not_compared": dict(self.not_compared),
            "latest": [asdict(difference) for difference in self.latest],
        }

    def __str__(self) -> str:
        """In words."""
        lines = [f"{self.compared.total()} compared, {self.count} differed, {self.not_compared.total()} not compared"]
        lines += [
            f"{one.what} of {one.conversation_id or 'all'}: {one.main}; the other side: {one.other}"
            for one in self.latest
        ]
        return "\n".join(lines)


# Two logs that are to hold the same: writes go to both, reads come from the main one and are compared

T = TypeVar("T")


class DualWriteLog:
    """The log of one tenant, twice."""

    def __init__(self, main: Log, other: Log, differences: Differences) -> None:
        self.tenant, self.user, self.actor = main.tenant, main.user, main.actor
        self._main = main
        self._other = other
        self._differences = differences
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._owed: dict[UUID, list[NewEvent]] = {}
        self._writing = 0
        self._writes = 0
        self._writes_of: Counter[UUID] = Counter()

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """Appends to the main log, as that decides; then, the same events, to the other one."""
        async with self._written(conversation_id):
            result = await self._main.append(conversation_id, events, expected)
            new = [event for event, place in zip(events, result.events, strict=True) if place.is_new]
            if new:
                self._owed.setdefault(conversation_id, []).extend(new)
            await self._pay(conversation_id, result.version)
            return result

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        """See :class:`Log`; compared event by event, as far as nobody wrote meanwhile."""
        before = {one: self._writes_of[one] for one in versions}
        busy = {one for one in versions if one in self._locks}
        main = await self._main.events_of(versions, limit)
        other = _by_conversation(await self._from_other(self._other.events_of(versions, limit), []))
        of_main = _by_conversation(main)
        for one in versions:
            if one in busy or one in self._locks or before[one] != self._writes_of[one]:
                self._differences.not_compared["events"] += 1
            else:
                self._differences.compare("events", one, of_main.get(one, []), other.get(one, []))
        return main

    async def conversations(self) -> dict[UUID, int]:
        """See :class:`Log`."""
        return await self._read("conversations", lambda log: log.conversations(), _same)

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        """See :class:`Log`."""
        return await self._read("conversations with tasks", lambda log: log.conversations_with_tasks(), _same)

    async def pending(self) -> list[PendingRow]:
        """See :class:`Log`."""
        return await self._read(
            "pending", lambda log: log.pending(), lambda rows: {(row.conversation, row.event_id) for row in rows}
        )

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        """See :class:`Log`. Positions are the main log's; what lies beyond one cannot be compared."""
        if after:
            return await self._main.latest(after, limit)
        return await self._read(
            "latest events", lambda log: log.latest(0, limit), lambda rows: {_what(e) for e in rows}
        )

    async def position(self) -> int:
        """See :class:`Log`."""
        return await self._main.position()

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        """See :class:`Log`. Whichever log is read, another process can hold leases on the server."""
        main = await self._main.lease_answers(keys, holder, seconds)
        other = await self._from_other(self._other.lease_answers(keys, holder, seconds), main)
        elsewhere = {key: leased for key, leased in other.items() if leased.holder != holder}
        return {
            key: replace(elsewhere[key], version=leased.version) if key in elsewhere else leased
            for key, leased in main.items()
        }

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        """See :class:`Log`."""
        main = await self._main.renew_leases(keys, holder, seconds)
        return main & await self._from_other(self._other.renew_leases(keys, holder, seconds), main)

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        """See :class:`Log`."""
        await self._main.release_answers(keys, holder)
        await self._from_other(self._other.release_answers(keys, holder), None)

    async def pay_all(self) -> None:
        """Gives the other log what it lacks, as far as it takes it."""
        for conversation_id in list(self._owed):
            async with self._written(conversation_id):
                await self._pay(conversation_id, None)

    async def _pay(self, conversation_id: UUID, version: int | None) -> None:
        owed = self._owed.get(conversation_id)
        if not owed:
            return
        try:
            result = await self._other.append(conversation_id, owed)
        except EventStoreError as error:
            self._differences.add("append", conversation_id, f"{len(owed)} event(s)", error)
            return
        del self._owed[conversation_id]
        if version is not None:
            self._differences.compare("append", conversation_id, version, result.version)

    async def _read(self, what: str, read: Callable[[Log], Awaitable[T]], part: Callable[[T], Any]) -> T:
        writes, writing = self._writes, self._writing
        main = await read(self._main)
        other = await self._from_other(read(self._other), None)
        if writing or self._writing or writes != self._writes:
            self._differences.not_compared[what] += 1
        elif other is not None:
            self._differences.compare(what, None, part(main), part(other))
        return main

    async def _from_other(self, read: Awaitable[T], failed: T) -> T:
        try:
            return await read
        except EventStoreError as error:
            self._differences.add("read", None, "read", error)
            return failed

    @asynccontextmanager
    async def _written(self, conversation_id: UUID) -> AsyncIterator[None]:
        """One writer of a conversation at a time, so that both logs have its events in the same order."""
        self._writing += 1
        try:
            async with self._locks.setdefault(conversation_id, asyncio.Lock()):
                yield
        finally:
            self._writing -= 1
            self._writes += 1
            self._writes_of[conversation_id] += 1


def _by_conversation(events: Iterable[Event]) -> dict[UUID, list[Any]]:
    found: defaultdict[UUID, list[Any]] = defaultdict(list)
    for event in events:
        found[event.conversation_id].append((event.version, *_what(event), event.actor, event.content))
    return found


def _what(event: Event) -> tuple[Any, ...]:
    return event.conversation_id, event.id, event.event_type


def _same(value: T) -> T:
    return value


async def copy_log(source: Log, target: Log, more: Iterable[UUID] = ()) -> None:
    """Copies all conversations, and ``more`` that no list shows, event by event, from one log to an empty one."""
    for conversation_id in [*await source.conversations(), *more]:
        version = 0
        while events := await source.events_of({conversation_id: version}):
            await target.append(conversation_id, [_again(event) for event in events])
            version = events[-1].version


def _again(event: Event) -> NewEvent:
    metadata = event.metadata.model_copy(update={"occurred_at": event.occurred_at})
    return NewEvent(event.data, event.id, event.actor, metadata)
