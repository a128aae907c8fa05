"""Reading events of the log or of one conversation: filters, pages, the horizon.

While the events of a page are handed out, the next page is fetched.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

from psycopg import AsyncCursor
from psycopg.pq import Format
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8
from psycopg.types.string import ByteaBinaryLoader

from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import Connection
from eventstore.database.pools import Fetching
from eventstore.database.queries import query, query_without
from eventstore.errors import InputError
from eventstore.events import CONTENT, Event
from eventstore.json_text import check_text

# Reading a page at a time: little is held however long the log is, no connection is, and each statement is short

_FIRST_EVENT = query("eventstore", "first_event")
_LAST_EVENT = query("eventstore", "last_event")

_FIRST_PAGE, _LARGEST_PAGE = 100, 2000
_PAGE_BYTES = 2 * 1024 * 1024
"""About what one page may hold in memory; there may be two."""
_FIRST_BATCH, _LARGEST_BATCH = 10, 200
_BREATH = 200
"""After so many events other coroutines run, the one that fetches the next page among them."""


@dataclass(frozen=True)
class Source:
    """Where pages come from.

    Attributes:
        name: of the query; its parameters are ``first``, ``last``, ``limit`` and the given ones.
        parameters: a condition whose parameter is None is left out.
        column: of an event's row, by which the query is ordered and bounded: 0, the position, or 2, the version.
        highest: that the column can hold.
        span: how far ``first`` and ``last`` may lie apart in one statement, where it may have to look at many events
            that it does not return.
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
        """The query, planned for the conditions that are given and no others."""
        return statement(self.name, frozenset(self.parameters.keys() - self.given.keys()))


async def pages(
    pool: Fetching, source: Source, first: int, last: int, limit: int | None
) -> AsyncGenerator[Event, None]:
    """The events between two positions or versions, both included; at most ``limit``."""
    walk = Walk(source, first, min(last, source.highest), limit)
    text, given = source.text, source.given

    async def page() -> list[TupleRow]:
        return await pool.fetch(text, given | walk.bounds(), cursor=RawRows)

    coming: asyncio.Task[list[TupleRow]] | None = None
    try:
        while not walk.is_over:
            rows = await (coming or page())
            walk.passed(rows)
            if not rows and not walk.is_over:
                await walk.skip(pool)
            coming = None if walk.is_over else asyncio.create_task(page())
            for start in range(0, len(rows), _BREATH):
                if coming is not None:
                    await asyncio.sleep(0)
                for event in map(Event.from_row, rows[start : start + _BREATH]):
                    yield event
    finally:
        if coming is not None:
            await cancel_and_wait([coming])
            if not coming.cancelled():
                coming.exception()  # nobody waits for the page any more, nor for why there is none


async def in_batches(
    read: Callable[[int, int], AsyncIterator[Event]], after: int, place: Callable[[Event], int], held_bytes: int
) -> AsyncGenerator[Event, None]:
    """Events for a consumer that may be slow: while it deals with one, no more is held than a small batch.

    Args:
        read: the events beyond a position or version, at most so many.
        place: of an event, its position or version.
        held_bytes: of contents in a batch, unless a single event takes more.
    """
    limit = _FIRST_BATCH
    while True:
        batch = [event async for event in read(after, limit)]
        is_last = len(batch) < limit
        sizes = list(accumulate(event.size for event in batch))
        fitting = max(1, bisect_right(sizes, held_bytes))
        if fitting < len(batch):
            del batch[fitting:]
            is_last = False
        limit = min(2 * limit, _LARGEST_BATCH) if fitting >= len(sizes) else fitting
        for event in batch:
            yield event
            after = place(event)
        if is_last:
            return


class Walk:
    """Where a reader stands: what remains, and how much of it the next page asks for."""

    def __init__(self, source: Source, first: int, last: int, limit: int | None) -> None:
        self._source = source
        self._first, self._last, self._left = first, last, limit
        self._size = _FIRST_PAGE

    @property
    def is_over(self) -> bool:
        """Whether nothing remains."""
        return self._first > self._last or self._left == 0

    @property
    def _asked(self) -> int:
        return self._size if self._left is None else min(self._size, self._left)

    @property
    def _window(self) -> tuple[int, int]:
        span = self._source.span
        if span is None:
            return self._first, self._last
        if self._source.backwards:
            return max(self._first, self._last - span + 1), self._last
        return self._first, min(self._last, self._first + span - 1)

    def bounds(self) -> dict[str, Any]:
        """The parameters of the next page: of one type whatever their size, or the driver would prepare for each."""
        first, last = self._window
        return {"first": Int8(first), "last": Int8(last), "limit": Int8(self._asked)}

    def passed(self, rows: list[TupleRow]) -> None:
        """Goes on behind the page of those rows."""
        first, last = self._window
        if len(rows) >= self._asked:
            first = last = rows[-1][self._source.column]
        if self._source.backwards:
            self._last = first - 1
        else:
            self._first = last + 1
        if self._left is not None:
            self._left -= len(rows)
        if rows:
            self._size = _next_size(rows)

    async def skip(self, pool: Fetching) -> None:
        """Goes on to the next event of all: positions may have gaps that many statements would not cross."""
        if self._source.backwards:
            [(self._last,)] = await pool.fetch(_LAST_EVENT, {"horizon": Int8(self._last)})
        else:
            [(self._first,)] = await pool.fetch(_FIRST_EVENT, {"first": Int8(self._first)})


def _next_size(rows: list[TupleRow]) -> int:
    """As many events as fit the memory of a page, judging by some of the last one: sizes differ a thousandfold."""
    sample = rows[:: max(1, len(rows) // 20)]
    mean = sum(len(row[CONTENT]) for row in sample) / len(sample) + 500
    return max(1, min(_LARGEST_PAGE, int(_PAGE_BYTES / mean)))


class RawRows(AsyncCursor[TupleRow]):
    """Reads rows as :meth:`Event.from_row` takes them: binary, JSON as the bytes that came."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.format = Format.BINARY
        self.adapters.register_loader("jsonb", ByteaBinaryLoader)


def statement(name: str, absent: frozenset[str]) -> str:
    """A read query without the lines on what is not asked for, so that it is planned for what is."""
    return query_without("eventstore", name, absent)


# Reading: events of the log or of one conversation, filtered

HIGHEST_VERSION = 2**31 - 1
_HIGHEST_POSITION = 2**63 - 1

_HORIZON = query("eventstore", "horizon")
_TIME_EDGES = query("eventstore", "time_edges")
_TIME_RANGE = query("eventstore", "time_range")

SPAN = 20_000
"""Positions that one statement looks at where a filter may let few events through: some milliseconds."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events to read; None means all.

    Attributes:
        types: event types.
        actor: exactly this actor.
        since, until: a half-open range of ``timestamp``, aware.
    """

    types: Sequence[str] | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
                raise InputError(f"{name}: {moment!r} is no datetime with a time zone")
        if self.types is not None:
            if isinstance(self.types, str) or not isinstance(self.types, Iterable):
                raise InputError(f"types: {self.types!r:.80} is not a list of event types")
            object.__setattr__(self, "types", tuple(self.types))
            for text in self.types:
                check_text(text, "types")
        if self.actor is not None:
            check_text(self.actor, "actor")

    @property
    def is_empty(self) -> bool:
        """Whether it lets every event through."""
        return self.types is None and self.actor is None and self.since is None and self.until is None

    def parameters(self) -> dict[str, Any]:
        """For the read queries."""
        return {
            "types": None if self.types is None else list(self.types),
            "actor": self.actor,
            "since": self.since,
            "until": self.until,
        }


async def horizon(pool: Fetching) -> int:
    """The position up to which the log is final. A statement of its own: see ``docs/concepts/order.md``."""
    return int((await pool.fetch(_HORIZON))[0][0])


async def last_event(pool: Fetching, up_to: int) -> int:
    """The position of the last event at or below ``up_to``; 0 if there is none."""
    return int((await pool.fetch(_LAST_EVENT, {"horizon": up_to}))[0][0])


async def end_of_log(pool: Fetching) -> int:
    """The position of the last event that is final; 0 if there is none."""
    return await last_event(pool, await horizon(pool))


def read_log(
    pool: Fetching,
    tenant: str | None,
    first: int,
    last: int,
    which: Filter,
    *,
    backwards: bool = False,
    limit: int | None,
) -> AsyncIterator[Event]:
    """Events of the whole log with ``first <= position <= last``, in order of position."""
    source = log_source(tenant, which, backwards=backwards)
    if which.since is None and which.until is None:
        return pages(pool, source, first, last, limit)
    return _in_time(pool, source, which, first, last, limit)


def read_conversation(
    pool: Fetching,
    tenant: str,
    conversation_id: UUID,
    first: int,
    last: int,
    which: Filter,
    *,
    backwards: bool = False,
    limit: int | None,
) -> AsyncIterator[Event]:
    """Events of one conversation with ``first <= version <= last``, in order of version."""
    return pages(pool, conversation_source(tenant, conversation_id, which, backwards=backwards), first, last, limit)


def log_source(tenant: str | None, which: Filter, *, backwards: bool) -> Source:
    """Pages of the log.

    A filter, the tenant's among them, finds no events but passes over the others, at some tenths of a microsecond each:
    an index that begins with the tenant would cost every event of every tenant thirty bytes and a further write. So a
    statement looks at a stretch of the log and no more.
    """
    return Source(
        "read_log_backwards" if backwards else "read_log_forwards",
        {"tenant": tenant, **which.parameters()},
        column=0,
        highest=_HIGHEST_POSITION,
        backwards=backwards,
        span=None if tenant is None and which.is_empty else SPAN,
    )


def conversation_source(tenant: str, conversation_id: UUID, which: Filter, *, backwards: bool) -> Source:
    """Pages of one conversation."""
    return Source(
        "read_conversation_backwards" if backwards else "read_conversation_forwards",
        {"tenant": tenant, "conversation_id": conversation_id, **which.parameters()},
        column=2,
        highest=HIGHEST_VERSION,
        backwards=backwards,
    )


async def _in_time(
    pool: Fetching, source: Source, which: Filter, first: int, last: int, limit: int | None
) -> AsyncIterator[Event]:
    times = {"since": which.since or "-infinity", "until": which.until or "infinity"}
    [(low, high)] = await pool.fetch(_TIME_EDGES, times)
    if low is None or high is None:
        return
    # Times rise with positions, but not strictly: where the range begins and ends is known once it was looked through.
    # That is worth it where it is short, or shorter than what would have to be passed over to come to it.
    ahead = last - high if source.backwards else low - first
    if high - low < max(SPAN, ahead):
        [(low, high)] = await pool.fetch(_TIME_RANGE, times)
        if low is None:
            return
        first, last = max(first, low), min(last, high)
    async with aclosing(pages(pool, source, first, last, limit)) as events:
        async for event in events:
            yield event
