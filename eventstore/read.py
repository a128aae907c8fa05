"""Reading: pages of the log or of one conversation, as an iterator that holds little however long they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from eventstore.database.connection import Pool
from eventstore.database.queries import query
from eventstore.errors import InputError
from eventstore.events import Event
from eventstore.jsontext import check_text

HIGHEST_VERSION = 2**31 - 1

_HORIZON = query("eventstore", "horizon")
_LAST_EVENT = query("eventstore", "last_event")

_FIRST_PAGE, _LARGEST_PAGE = 100, 2000
_PAGE_BYTES = 4 * 1024 * 1024  # about what one page may hold in memory


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
        for text in self.types or ():
            check_text(text, "types")
        check_text(self.actor or "", "actor")

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


async def horizon(pool: Pool) -> int:
    """The position up to which the log is final. A statement of its own: see ``ORDER.md``."""
    return int((await pool.fetch(_HORIZON))[0][0])


async def last_event(pool: Pool, up_to: int) -> int:
    """The position of the last event at or below ``up_to``; 0 if there is none."""
    return int((await pool.fetch(_LAST_EVENT, {"horizon": up_to}))[0][0])


def read_log(
    pool: Pool, tenant: str | None, first: int, last: int, which: Filter, *, backwards: bool = False, limit: int | None
) -> AsyncIterator[Event]:
    """Events of the whole log with ``first <= position <= last``, in order of position."""
    parameters = {"tenant": tenant, **which.parameters()}
    name = "read_log_backwards" if backwards else "read_log_forwards"
    return _pages(pool, name, parameters, "position", first, last, limit, backwards=backwards)


def read_conversation(
    pool: Pool,
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
    parameters = {"tenant": tenant, "conversation_id": conversation_id, **which.parameters()}
    name = "read_conversation_backwards" if backwards else "read_conversation_forwards"
    return _pages(pool, name, parameters, "version", first, last, limit, backwards=backwards)


async def _pages(
    pool: Pool,
    name: str,
    parameters: dict[str, Any],
    key: str,
    first: int,
    last: int,
    limit: int | None,
    *,
    backwards: bool,
) -> AsyncIterator[Event]:
    text = query("eventstore", name)
    page_size, left = _FIRST_PAGE, limit
    while first <= last and left != 0:
        asked = page_size if left is None else min(page_size, left)
        rows = await pool.fetch(text, parameters | {"first": first, "last": last, "limit": asked})
        for row in rows:
            yield Event(*row)
        if len(rows) < asked:
            return
        left = None if left is None else left - len(rows)
        end: int = rows[-1][0] if key == "position" else rows[-1][2]
        first, last = (first, end - 1) if backwards else (end + 1, last)
        page_size = _next_page(rows)


def _next_page(rows: list[Any]) -> int:
    """As many events as fit the memory of a page, judging by the last one: sizes differ a thousandfold."""
    sample = rows[:: max(1, len(rows) // 20)]
    mean = sum(len(str(row[9])) for row in sample) / len(sample) + 500
    return max(1, min(_LARGEST_PAGE, int(_PAGE_BYTES / mean)))
