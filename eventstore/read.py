"""Reading: events of the log or of one conversation, filtered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from eventstore.database.pool import Fetching
from eventstore.database.queries import query
from eventstore.errors import InputError
from eventstore.events import Event
from eventstore.jsontext import check_text
from eventstore.paging import Source, pages

HIGHEST_VERSION = 2**31 - 1
_HIGHEST_POSITION = 2**63 - 1

_HORIZON = query("eventstore", "horizon")
_LAST_EVENT = query("eventstore", "last_event")
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
