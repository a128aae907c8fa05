"""Pages of a list: keyset pagination, one statement a page.

A page begins beyond the place in the order where the one before it ended, found by an index: rows that arrive meanwhile
move nothing, and the thousandth page costs what the first did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from eventstore import Caller, EventStore
from eventstore.errors import InputError
from projections.cursors import Purpose
from projections.lists import Listing
from projections.position import fetch_at_least

Row = TypeVar("Row")
P = ParamSpec("P")

PAGE = 500
"""Rows that :func:`every` reads at a time."""
PAGE_BYTES = 8 * 1024 * 1024
"""A page that takes more ends there, whatever its limit."""
_FIRST_STRETCH, _LONGEST_STRETCH = 51, 1000
"""Rows of a statement where more than a page is read: few at first, because nobody knows yet how large they are."""
_STRETCH_BYTES = 2 * 1024 * 1024
"""About what such a statement may return."""

_ROW_BYTES = 1000

Fetch = Callable[[str, dict[str, Any]], Awaitable[list[TupleRow]]]
"""Runs a statement with its parameters."""


class Page(list[Row]):
    """Rows of a list in their order.

    Attributes:
        next: the cursor of the page after it; None where the list ended with this one.
    """

    def __init__(self, rows: Iterable[Row] = (), next: str | None = None) -> None:
        super().__init__(rows)
        self.next = next


@dataclass(frozen=True)
class Asked:
    """What is asked of a list.

    Attributes:
        filters: a None is left out.
        after: the cursor of the page before.
        at_least: the position that the projections must have applied.
    """

    filters: dict[str, Any]
    newest_first: bool
    limit: int | None = None
    after: str | None = None
    at_least: int | None = None


async def read_page(
    store: EventStore, caller: Caller, listing: Listing[Row], asked: Asked, timeout: float
) -> Page[Row]:
    """Reads a page: in one statement unless it has many rows, or has to wait for the projections. It ends before its
    limit where its rows take more than :data:`PAGE_BYTES`.

    Raises:
        InvalidCursor: ``after`` is no cursor of this list.
        InputError: the limit is no number of rows.
        NotCaughtUp: the projections have not applied ``at_least`` within ``timeout`` seconds.
    """
    limit = checked_limit(asked.limit)
    check_flag(asked.newest_first, "newest_first")
    order = "newest first" if asked.newest_first else "oldest first"
    purpose = Purpose(listing.kind, order, asked.filters, listing.types)
    place = purpose.read(asked.after) if asked.after is not None else None
    if limit == 0:
        return Page([], asked.after)

    async def fetch(text: str, given: dict[str, Any]) -> list[TupleRow]:
        return await fetch_at_least(store, caller, text, given, listing.projections, asked.at_least, timeout)

    if limit is None:
        all_rows = await fetch_all(fetch, listing, asked.filters, place, newest_first=asked.newest_first)
        return Page(map(listing.make, all_rows))
    rows: list[TupleRow] = []
    size, is_full = 0, False
    async for stretch in stretches(
        fetch, listing, asked.filters, place, newest_first=asked.newest_first, limit=limit + 1
    ):
        for row in stretch:
            rows.append(row)
            size += row_bytes([row])
            is_full = len(rows) > limit or size > PAGE_BYTES
            if is_full:
                break
        if is_full:
            break
    further = None
    if is_full:
        del rows[limit:]
        further = purpose.write(_place(listing, rows[-1]))
    return Page(_made(listing, rows), further)


async def fetch_all(
    fetch: Fetch,
    listing: Listing[Any],
    filters: Mapping[str, Any],
    place: Sequence[Any] | None = None,
    *,
    newest_first: bool = False,
) -> list[TupleRow]:
    """The rows of a list from a place on to its end, a stretch at a time: no statement is long."""
    read = stretches(fetch, listing, filters, place, newest_first=newest_first)
    return [row async for stretch in read for row in stretch]


async def stretches(
    fetch: Fetch,
    listing: Listing[Any],
    filters: Mapping[str, Any],
    place: Sequence[Any] | None = None,
    *,
    newest_first: bool = False,
    limit: int | None = None,
) -> AsyncIterator[list[TupleRow]]:
    """The rows of a list from a place on, as many in a statement as fit :data:`_STRETCH_BYTES`, judging by the last.

    Args:
        limit: rows in all; None reads to the end of the list.
    """
    size = _FIRST_STRETCH
    while limit is None or limit > 0:
        asked = size if limit is None else min(size, limit)
        text, given = listing.statement(filters, place, newest_first=newest_first, limit=Int8(asked))
        stretch = await fetch(text, given)
        if stretch:
            yield stretch
        if len(stretch) < asked:
            return
        if limit is not None:
            limit -= len(stretch)
        place = _place(listing, stretch[-1])
        size = max(1, min(_LONGEST_STRETCH, 4 * size, _STRETCH_BYTES * len(stretch) // row_bytes(stretch)))


def row_bytes(rows: Iterable[TupleRow]) -> int:
    """About what rows take: the texts and JSON in them, and the objects around them."""
    return sum(_ROW_BYTES + sum(len(value) for value in row if isinstance(value, str | bytes)) for row in rows)


def _place(listing: Listing[Any], row: TupleRow) -> list[Any]:
    return [row[column.place] for column in listing.order]


def _made(listing: Listing[Row], rows: list[TupleRow]) -> Iterable[Row]:
    if rows and len(rows[0]) > listing.width:
        rows = [row[: listing.width] for row in rows]
    return map(listing.make, rows)


def checked_limit(limit: int | None) -> int | None:
    """A number of rows.

    Raises:
        InputError: it is none.
    """
    if limit is not None and (not isinstance(limit, int) or not 0 <= limit < 2**62):
        raise InputError(f"limit: {limit!r} is no number of rows: give one from 0, or None for all")
    return limit


def check_flag(value: object, name: str) -> None:
    """Refuse what is neither true nor false.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name}: {value!r:.80} is neither True nor False")


async def every(read: Callable[P, Awaitable[Page[Row]]], *what: P.args, **which: P.kwargs) -> AsyncIterator[Row]:
    """All rows of a list, read a page at a time.

    ::

        async for message in every(reader.messages, trip, role="user"):
            print(message.content)

    Args:
        read: a method of :class:`Reader` that returns pages.
        what, which: its arguments; ``limit`` is the size of the pages here (500).
    """
    named: dict[str, Any] = {"limit": PAGE} | which
    while True:
        page = await read(*what, **named)
        for row in page:
            yield row
        if page.next is None:
            return
        named["after"] = page.next
