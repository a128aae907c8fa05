"""Reading events of the log or of one conversation: filters, pages, the horizon.

A read fetches page after page, in short statements: it holds no connection between them, and little memory however long
the log is. While the events of one page are processed, the next one is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.pq import Format
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8
from psycopg.types.string import ByteaBinaryLoader

from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import Connection
from eventstore.database.pools import Queryable
from eventstore.database.queries import query, query_without
from eventstore.errors import InputError
from eventstore.events import HIGHEST_POSITION, HIGHEST_VERSION, Event
from eventstore.json_text import check_text

SPAN = 20_000
"""Positions that one statement looks at if a filter may match few events: some milliseconds."""

_PAGE_EVENTS = 2000
_PAGE_BYTES = 2 * 1024 * 1024
"""The size of the events of a page by the server's estimate, unless a single event is larger; there may be two."""
_FIRST_BATCH, _MAX_BATCH = 10, 200
_EVENTS_BETWEEN_YIELDS = 200
"""The number of events after which other tasks run, such as the one that fetches the next page."""

_HORIZON = query("eventstore", "horizon")
_FIRST_EVENT = query("eventstore", "first_event")
_LAST_EVENT = query("eventstore", "last_event")
_TIME_EDGES = query("eventstore", "time_edges")
_TIME_RANGE = query("eventstore", "time_range")


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on the events to read; None matches all.

    Attributes:
        types: event types.
        actor: the actor.
        since, until: a half-open range of ``timestamp``, with time zones.
        tenant: the tenant.
        correlation_id: that of the metadata.
    """

    types: Sequence[str] | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    tenant: str | None = None
    correlation_id: str | None = None

    def __post_init__(self) -> None:
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
                raise InputError(f"{name}: {moment!r} is not a datetime with a time zone")
        if self.types is not None:
            if isinstance(self.types, str) or not isinstance(self.types, Iterable):
                raise InputError(f"types: {self.types!r:.80} is not a list of event types")
            object.__setattr__(self, "types", tuple(self.types))
            for text in self.types:
                check_text(text, "types")
        if self.actor is not None:
            check_text(self.actor, "actor")
        if self.correlation_id is not None:
            check_text(self.correlation_id, "correlation_id")

    @property
    def is_empty(self) -> bool:
        """True if the filter matches every event."""
        return all(value is None for value in self.parameters().values())

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the read queries."""
        types = None if self.types is None else list(self.types)
        return {
            "types": types,
            "actor": self.actor,
            "since": self.since,
            "until": self.until,
            "tenant": self.tenant,
            "correlation_id": self.correlation_id,
        }

    def matches(self, event: Event) -> bool:
        """Return whether an event has the tenant, the actor, the correlation id, and one of the types."""
        return (
            self.tenant in (None, event.tenant_id)
            and (self.types is None or event.event_type in self.types)
            and self.actor in (None, event.actor)
            and (self.correlation_id is None or event.raw_metadata.get("correlation_id") == self.correlation_id)
        )


async def horizon(pool: Queryable) -> int:
    """Return the position up to which the log is final. A separate statement: see ``docs/concepts/order.md``."""
    return int((await pool.fetch(_HORIZON))[0][0])


async def last_event(pool: Queryable, up_to: int) -> int:
    """Return the position of the last event at or below ``up_to``; 0 if there is none."""
    return int((await pool.fetch(_LAST_EVENT, {"horizon": up_to}))[0][0])


async def end_of_log(pool: Queryable) -> int:
    """Return the position of the last event that is final; 0 if there is none."""
    return await last_event(pool, await horizon(pool))


def read_conversation(
    pool: Queryable,
    conversation_id: UUID,
    first: int,
    last: int,
    event_filter: Filter,
    *,
    backwards: bool = False,
    limit: int | None,
) -> AsyncIterator[Event]:
    """Iterate over the events of one conversation with ``first <= version <= last``, in order of version."""
    return pages(pool, conversation_source(conversation_id, event_filter, backwards=backwards), first, last, limit)


def read_log(
    pool: Queryable, first: int, last: int, event_filter: Filter, *, backwards: bool = False, limit: int | None
) -> AsyncIterator[Event]:
    """Iterate over the events of the log with ``first <= position <= last``, in order of position."""
    source = log_source(event_filter, backwards=backwards)
    if event_filter.since is None and event_filter.until is None:
        return pages(pool, source, first, last, limit)
    return _read_log_in_time(pool, source, event_filter, first, last, limit)


async def _read_log_in_time(
    pool: Queryable, source: Source, event_filter: Filter, first: int, last: int, limit: int | None
) -> AsyncIterator[Event]:
    times = {"since": event_filter.since or "-infinity", "until": event_filter.until or "infinity"}
    [(low, high)] = await pool.fetch(_TIME_EDGES, times)
    if low is None or high is None:
        return
    # Times increase with positions, but not strictly: the exact range of positions is known only after a scan of it.
    # The scan pays off if the range is short, or shorter than the part of the log that it excludes.
    excluded = last - high if source.backwards else low - first
    if high - low < max(SPAN, excluded):
        [(low, high)] = await pool.fetch(_TIME_RANGE, times)
        if low is None:
            return
        first, last = max(first, low), min(last, high)
    async with aclosing(pages(pool, source, first, last, limit)) as events:
        async for event in events:
            yield event


async def in_batches(
    read: Callable[[int, int], AsyncIterator[Event]], after: int, place: Callable[[Event], int], held_bytes: int
) -> AsyncGenerator[Event, None]:
    """Iterate over events for a consumer that may be slow, and hold no more than a small batch of them.

    Args:
        read: reads a number of events after a position or version.
        place: returns the position or version of an event.
        held_bytes: size of the contents with which a batch ends.
    """
    limit = _FIRST_BATCH
    while True:
        batch: list[Event] = []
        size = 0
        async with aclosing(cast("AsyncGenerator[Event, None]", read(after, limit))) as events:
            async for event in events:
                batch.append(event)
                size += event.size
                if size > held_bytes:
                    break
        fits = size <= held_bytes
        is_last = fits and len(batch) < limit
        limit = min(2 * limit, _MAX_BATCH) if fits else len(batch)
        for event in batch:
            yield event
            after = place(event)
        if is_last:
            return


# Pages


@dataclass(frozen=True)
class Source:
    """A query that returns pages of events.

    Attributes:
        name: name of the query; its further parameters are ``first``, ``last`` and ``limit``.
        parameters: a condition whose parameter is None is left out.
        column: index of the column by which the query is ordered and bounded: 0, the position, or 2, the version.
        highest: the highest value of this column.
        span: how far ``first`` and ``last`` may be apart in one statement; None for any distance. It bounds the time of
            a statement that skips events.
    """

    name: str
    parameters: dict[str, Any]
    column: int
    highest: int
    backwards: bool
    span: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The parameters whose conditions are not left out."""
        return {name: value for name, value in self.parameters.items() if value is not None}

    @property
    def text(self) -> str:
        """The query without the conditions that are left out, so that it is planned for the others."""
        return query_without("eventstore", self.name, frozenset(self.parameters.keys() - self.given.keys()))


def conversation_source(conversation_id: UUID, event_filter: Filter, *, backwards: bool) -> Source:
    """Return the source of the events of one conversation of the filter's tenant."""
    return Source(
        "read_conversation_backwards" if backwards else "read_conversation_forwards",
        {"conversation_id": conversation_id, **event_filter.parameters()},
        column=2,
        highest=HIGHEST_VERSION,
        backwards=backwards,
    )


def log_source(event_filter: Filter, *, backwards: bool) -> Source:
    """Return the source of the events of the log.

    A filter, including the tenant, skips the other events, at some tenths of a microsecond each: an index that begins
    with the tenant would cost thirty bytes and another write for every event. So each statement has a span.
    """
    return Source(
        "read_log_backwards" if backwards else "read_log_forwards",
        event_filter.parameters(),
        column=0,
        highest=HIGHEST_POSITION,
        backwards=backwards,
        span=None if event_filter.is_empty else SPAN,
    )


async def pages(
    pool: Queryable, source: Source, first: int, last: int, limit: int | None
) -> AsyncGenerator[Event, None]:
    """Iterate over the events between two positions or versions, both included; at most ``limit``."""
    remaining = RemainingRange(source, first, min(last, source.highest), limit)
    text, given = source.text, source.given

    async def fetch() -> list[TupleRow]:
        return await pool.fetch(text, given | remaining.page_parameters(), cursor=RawRows)

    next_page: asyncio.Task[list[TupleRow]] | None = None
    try:
        while not remaining.is_empty:
            rows = await (next_page or fetch())
            remaining.advance(rows)
            if not rows and not remaining.is_empty:
                await remaining.skip_gap(pool)
            next_page = None if remaining.is_empty else asyncio.create_task(fetch())
            for start in range(0, len(rows), _EVENTS_BETWEEN_YIELDS):
                if next_page is not None:
                    await asyncio.sleep(0)
                for event in map(Event.from_row, rows[start : start + _EVENTS_BETWEEN_YIELDS]):
                    yield event
    finally:
        if next_page is not None:
            await cancel_and_wait([next_page])
            if not next_page.cancelled():
                next_page.exception()  # mark it as retrieved


class RemainingRange:
    """The range of positions or versions that has not been read, and the bounds of its next page."""

    def __init__(self, source: Source, first: int, last: int, limit: int | None) -> None:
        self._source = source
        self._first, self._last, self._limit = first, last, limit

    @property
    def is_empty(self) -> bool:
        """True if nothing remains to be read."""
        return self._first > self._last or self._limit == 0

    def page_parameters(self) -> dict[str, Any]:
        """Return the parameters of the next page.

        They have one type whatever their size, or the driver would prepare a statement for each type.
        """
        first, last, size = self._page()
        return {"first": Int8(first), "last": Int8(last), "limit": Int8(size), "bytes": Int8(_PAGE_BYTES)}

    def advance(self, rows: list[TupleRow]) -> None:
        """Remove the page that consists of these rows."""
        first, last, size = self._page()
        if len(rows) >= size or (rows and rows[-1][-1] >= _PAGE_BYTES):
            first = last = rows[-1][self._source.column]
        if self._source.backwards:
            self._last = first - 1
        else:
            self._first = last + 1
        if self._limit is not None:
            self._limit -= len(rows)

    async def skip_gap(self, pool: Queryable) -> None:
        """Continue at the next event of any tenant: positions may have gaps of many spans."""
        if self._source.backwards:
            [(self._last,)] = await pool.fetch(_LAST_EVENT, {"horizon": Int8(self._last)})
        else:
            [(self._first,)] = await pool.fetch(_FIRST_EVENT, {"first": Int8(self._first)})

    def _page(self) -> tuple[int, int, int]:
        first, last, span = self._first, self._last, self._source.span
        if span is not None and self._source.backwards:
            first = max(first, last - span + 1)
        elif span is not None:
            last = min(last, first + span - 1)
        return first, last, _PAGE_EVENTS if self._limit is None else min(_PAGE_EVENTS, self._limit)


class RawRows(AsyncCursor[TupleRow]):
    """A cursor whose rows :meth:`Event.from_row` accepts: binary format, JSON as bytes."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.format = Format.BINARY
        self.adapters.register_loader("jsonb", ByteaBinaryLoader)
