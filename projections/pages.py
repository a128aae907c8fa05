"""Keyset pagination: the lists, their cursors and their pages.

A cursor carries what it was made for: the kind of list, its order, and a hash of its tenant and filters. So one that is
used for another list is refused instead of beginning somewhere. The check sum finds damage; it is no signature, for a
cursor that somebody made up can do no more than begin the same list, of the same tenant, at another place.

The index begins with what is the same for all rows of the list; then come the columns of its order, the last of which
make it total. None of them ever changes in a row, except the time of a conversation's last update.

A page begins beyond the place in the order where the one before it ended, found by an index: rows that arrive meanwhile
move nothing, and the thousandth page costs what the first did.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from hashlib import blake2b
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from eventstore import Caller, EventStore
from eventstore.database.queries import query_without
from eventstore.errors import InputError, InvalidCursor, printable
from projections.read_your_writes import fetch_at_least
from projections.rows import Conversation, Message, Task

# Cursors: where a page ended, as a text that means nothing to whoever keeps it

_CHECK_BYTES = 6
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HIGHEST = 2**63 - 1


@dataclass(frozen=True)
class Purpose:
    """What a cursor is made for.

    Attributes:
        kind: of the list, in words.
        order: in words.
        filters: everything else that decides which rows are in the list.
        types: of the values that say where a row stands in the order: ``datetime``, ``UUID`` or ``int``.
    """

    kind: str
    order: str
    filters: Mapping[str, Any]
    types: Sequence[type]

    def write(self, place: Sequence[Any]) -> str:
        """The cursor of the rows beyond a place."""
        told = [self.kind, self.order, self._hash, *map(_plain, place)]
        body = json.dumps(told, separators=(",", ":")).encode()
        return urlsafe_b64encode(_check(body) + body).decode().rstrip("=")

    def read(self, cursor: str) -> tuple[Any, ...]:
        """The place that a cursor stands for.

        Raises:
            InvalidCursor: it is damaged, or was made for something else.
        """
        kind, order, filters, *place = _opened(cursor)
        if kind != self.kind:
            raise InvalidCursor(f"the cursor is one of {kind}, not of {self.kind}: begin this list without a cursor")
        if order != self.order:
            raise InvalidCursor(f"the cursor is of a list that has the {order}, not the {self.order}: keep the order")
        if filters != self._hash:
            raise InvalidCursor(
                "the cursor is of a list of another tenant or with other filters: keep them as they were"
            )
        try:
            return tuple(_value(kind, value) for kind, value in zip(self.types, place, strict=True))
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise _damaged(cursor) from None

    @cached_property
    def _hash(self) -> str:
        given = sorted((name, str(_plain(value))) for name, value in self.filters.items() if value is not None)
        return blake2b(repr(given).encode(), digest_size=9).hexdigest()


def _opened(cursor: str) -> list[Any]:
    if not isinstance(cursor, str):
        raise InvalidCursor(f"a {type(cursor).__name__} is no cursor: give the next of a page, as it was")
    try:
        whole = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        body = whole[_CHECK_BYTES:]
        told = json.loads(body.decode()) if whole[:_CHECK_BYTES] == _check(body) else None
    except (ValueError, Base64Error):
        told = None
    if not isinstance(told, list) or len(told) < 3:
        raise _damaged(cursor)
    return told


def _damaged(cursor: str) -> InvalidCursor:
    return InvalidCursor(
        f"the cursor {printable(cursor, 60)!r} is damaged: give the next of a page, whole and unchanged"
    )


def _check(body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECK_BYTES).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    return value.hex if isinstance(value, UUID) else value


def _value(kind: type, plain: Any) -> Any:
    if kind is datetime:
        return _EPOCH + plain * _MICROSECOND
    if kind is UUID:
        return UUID(plain)
    if type(plain) is not int or abs(plain) > _HIGHEST:
        raise ValueError("not a number of the log")
    return plain


# The lists that can be read in pages: the statement of each, and the columns of the index that it goes along

Row = TypeVar("Row")

_LOWEST: dict[type, Any] = {UUID: UUID(int=0), int: Int8(0)}
"""The lowest value of each type that follows a time."""


@dataclass(frozen=True)
class Column:
    """A column of an order.

    Attributes:
        name: in the statement.
        place: in a row.
    """

    name: str
    place: int
    type: type


@dataclass(frozen=True)
class Edge:
    """Where a stretch of a list begins or ends: values of the columns of its order, and how rows compare with them."""

    values: tuple[Any, ...]
    comparison: str


@dataclass(frozen=True, eq=False)
class Listing(Generic[Row]):
    """A list that is read in pages.

    Attributes:
        kind: what is in it, in words that a cursor carries.
        query: the name of its statement.
        fixed: the columns that are the same for all rows, by the name of what is asked for.
        order: those by which it is ordered.
        make: the object of a row.
        width: columns that the object takes.
        projections: that fill the tables it is read from.
        filters: parameters without which a line of the statement is left out.
    """

    kind: str
    query: str
    fixed: Mapping[str, str]
    order: tuple[Column, ...]
    make: Callable[[Sequence[Any]], Row]
    width: int
    projections: tuple[str, ...]
    filters: frozenset[str]

    @cached_property
    def types(self) -> tuple[type, ...]:
        """Of the columns of the order."""
        return tuple(column.type for column in self.order)

    @property
    def is_in_time(self) -> bool:
        """Whether a range of time is a stretch of it."""
        return self.types[0] is datetime

    def edges(
        self, asked: Mapping[str, Any], place: Sequence[Any] | None, *, newest_first: bool
    ) -> tuple[Edge | None, Edge | None]:
        """Between which edges the rows stand that are asked for, beyond a place in the order; None is no edge."""
        lowest = [_LOWEST[kind] for kind in self.types[1:]]
        low = high = None
        if self.is_in_time and asked.get("since") is not None:
            low = Edge((asked["since"], *lowest), ">=")
        if self.is_in_time and asked.get("until") is not None:
            high = Edge((asked["until"], *lowest), "<")
        if place is not None and newest_first:
            high = Edge(tuple(map(_sent, place)), "<")
        elif place is not None:
            low = Edge(tuple(map(_sent, place)), ">")
        return low, high

    def statement(
        self, asked: Mapping[str, Any], place: Sequence[Any] | None, *, newest_first: bool, limit: Any
    ) -> tuple[str, dict[str, Any]]:
        """The text, planned for what is asked for and nothing else, and its parameters."""
        low, high = self.edges(asked, place, newest_first=newest_first)
        given = {name: _sent(asked[name]) for name in self._conditions if asked.get(name) is not None}
        text = _text(self, frozenset(given), low and low.comparison, high and high.comparison, newest_first)
        given |= {name: asked[name] for name in self.fixed}
        for name, edge in (("low", low), ("high", high)):
            if edge is not None:
                given |= {f"{name}_{number}": value for number, value in enumerate(edge.values)}
        return text, given | {"limit": limit}

    @cached_property
    def _conditions(self) -> frozenset[str]:
        """What is asked of each row, not by the index."""
        by_index = {*self.fixed, *(("since", "until") if self.is_in_time else ())}
        return self.filters - by_index


@cache
def _text(listing: Listing[Any], given: frozenset[str], low: str | None, high: str | None, newest_first: bool) -> str:
    """The text of a listing's statement with these conditions and these comparisons with its edges."""
    columns = ", ".join(column.name for column in listing.order)
    within = [f"{column} = %({name})s" for name, column in listing.fixed.items()]
    for name, comparison in (("low", low), ("high", high)):
        if comparison is not None:
            values = ", ".join(f"%({name}_{number})s" for number in range(len(listing.order)))
            within.append(f"({columns}) {comparison} ({values})")
    way = "DESC" if newest_first else "ASC"
    order = ", ".join(f"{column.name} {way}" for column in listing.order)
    text = query_without("projections", listing.query, listing.filters.difference(given))
    # No str.format: other braces in the text are JSON.
    return text.replace("{within}", "\n   AND ".join(within)).replace("{order}", order)


def _sent(value: Any) -> Any:
    """Numbers are of one type whatever their size, or the driver would prepare for each."""
    return Int8(value) if type(value) is int else value


_OF_CONVERSATIONS = frozenset(("active", "deleted"))
_OF_MESSAGES = frozenset(("tenant", "after_version", "role", "actor", "since", "until", "deleted"))
_OF_TASKS = frozenset(("status", "deleted"))
_OF_TENANT = {"tenant": "t.tenant_id"}


def conversations(by: str, *, of_actor: bool) -> Listing[Conversation]:
    """Conversations by the time when they were ``updated`` or ``created``."""
    return _CONVERSATIONS[by, of_actor]


_CONVERSATIONS: dict[tuple[str, bool], Listing[Conversation]] = {
    **{
        (by, False): Listing(
            f"conversations by {by}_at", "conversations", {"tenant": "c.tenant_id"},
            (Column(f"c.{by}_at", place, datetime), Column("c.id", 0, UUID)),
            Conversation.from_row, 13, ("conversations",), _OF_CONVERSATIONS,
        )
        for by, place in (("created", 3), ("updated", 4))
    },
    **{
        (by, True): Listing(
            f"conversations of an actor by {by}_at", "conversations_of_actor",
            {"tenant": "a.tenant_id", "actor": "a.actor"},
            (Column(f"a.{by}_at", place, datetime), Column("a.conversation_id", 0, UUID)),
            Conversation.from_row, 13, ("conversations", "actors"), _OF_CONVERSATIONS,
        )
        for by, place in (("created", 3), ("updated", 13))
    },
}  # fmt: skip

MESSAGES = Listing(
    "messages of a conversation", "messages", {"conversation_id": "m.conversation_id"},
    (Column("m.version", 9, int),),
    Message.from_row, 13, ("messages",), _OF_MESSAGES,
)  # fmt: skip
ALL_MESSAGES = Listing(
    "messages of all conversations", "messages", {"tenant": "m.tenant_id"},
    (Column("m.created_at", 5, datetime), Column("m.conversation_id", 1, UUID), Column("m.version", 9, int)),
    Message.from_row, 13, ("messages", "conversations"), _OF_MESSAGES,
)  # fmt: skip

_BY_CREATION = (Column("t.created_at", 4, datetime), Column("t.id", 0, UUID))
_OF_ALL_BY_CREATION = (_BY_CREATION[0], Column("t.conversation_id", 1, UUID), _BY_CREATION[1])
TASKS = Listing(
    "tasks of a conversation", "tasks", _OF_TENANT | {"conversation_id": "t.conversation_id"}, _BY_CREATION,
    Task.from_row, 15, ("tasks",), _OF_TASKS,
)  # fmt: skip
ALL_TASKS = Listing(
    "tasks of all conversations",
    "tasks",
    _OF_TENANT,
    _OF_ALL_BY_CREATION,
    Task.from_row,
    15,
    ("tasks", "conversations"),
    _OF_TASKS,
)
ALL_TASKS_IN_STATUS = Listing(
    "tasks of all conversations in a status", "tasks", _OF_TENANT | {"status": "t.status"}, _OF_ALL_BY_CREATION,
    Task.from_row, 15, ("tasks", "conversations"), _OF_TASKS,
)  # fmt: skip


# Pages of a list: keyset pagination, one statement a page

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
class PageRequest:
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
    store: EventStore, caller: Caller, listing: Listing[Row], asked: PageRequest, timeout: float
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
