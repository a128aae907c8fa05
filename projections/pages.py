"""Keyset pagination: pages of a list, the lists, and their cursors.

A page begins beyond the place in the order where the one before it ended, found by an index: new rows move nothing, and
the thousandth page costs what the first did. The index begins with the columns that are the same for all rows of the
list; then come the columns of the order; the last ones make it total. None of them ever changes in a row, except
the time of a conversation's last update.

A cursor holds what it was made for: the kind of the list, its order, and a hash of its tenant and filters. So a cursor
that is used for another list is refused. Its checksum detects damage and is not a signature: a forged cursor can only
begin the same list, of the same tenant, at another place.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from hashlib import blake2b
from sys import getsizeof
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from eventstore.database.queries import query, query_without
from eventstore.errors import InputError, InvalidCursor, printable
from projections.rows import Conversation, Message, ReadTableRow, Task

PAGE_BYTES = 8 * 1024 * 1024
"""A page whose rows take more ends before its limit."""
PAGE_SIZE = 500
"""Rows that :func:`all_items` reads at a time by default."""
_CHUNK_ROWS = 1001
"""Rows of a statement at most: the largest page over HTTP, and the row that tells whether there are more."""
_CHUNK_BYTES = 2 * 1024 * 1024
"""The size of the rows of a statement by the server's estimate, unless a single row is larger."""
OBJECT_BYTES = 1000
"""About the size of the objects of a row, besides its values; the statements count it too."""
FEW_CONVERSATIONS = 1000
"""For a user who is a member of at most so many, lists of all conversations are read from the rows of these and sorted:
some tens of milliseconds. Along the index of the order, a page passes over the rows of others, up to all of them."""
_MOST_UNDERESTIMATED = 100
"""The server takes a compressed value for ten times its stored bytes. lz4 may have stored a 250th of it, and a text
takes up to four bytes a character in memory."""

Row = TypeVar("Row", bound=ReadTableRow)
Item = TypeVar("Item")
P = ParamSpec("P")


class Page(list[Item]):
    """A page of a list.

    A page is the list of its items. As JSON, over HTTP and on the command line, it is ``{"items": […], "next": …}``.

    Attributes:
        next: the cursor of the next page; None if the list ended with this one.
    """

    def __init__(self, items: Iterable[Item] = (), next: str | None = None) -> None:
        super().__init__(items)
        self.next = next

    @property
    def items(self) -> list[Item]:
        """The page itself, by the name that its items have in JSON."""
        return self


async def all_items(read: Callable[P, Awaitable[Page[Item]]], *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Item]:
    """Yield all rows of a list, read a page at a time.

    ::

        async for message in all_items(reader.messages, trip, role="user"):
            print(message.content)

    Args:
        read: a method of :class:`Reader` that returns pages, or :meth:`Search.page`.
        args, kwargs: its arguments; ``limit`` is the size of the pages (500).
    """
    named: dict[str, Any] = {"limit": PAGE_SIZE} | kwargs
    while True:
        page = await read(*args, **named)
        for row in page:
            yield row
        if page.next is None:
            return
        named["after"] = page.next


async def read_page(
    read: Callable[[Sequence[Any] | None, int | None], AsyncIterator[tuple[Sequence[Item], float]]],
    cursor_format: CursorFormat,
    *,
    limit: int | None,
    after: str | None,
    size_of: Callable[[Item], int],
    place_of: Callable[[Item], Sequence[Any]],
) -> Page[Item]:
    """Return the page of a list that begins beyond a cursor.

    It ends before its limit if its rows take more than :data:`PAGE_BYTES`.

    Args:
        read: yields the rows beyond a place in the order, at most so many, in chunks, each with an upper bound of the
            memory that it takes.
        limit: rows at most; None reads the list to its end.
        after: the cursor of the page before.
        size_of, place_of: return how much memory a row takes, and its place in the order.

    Raises:
        InvalidCursor: ``after`` is not a cursor of this list.
        InputError: the limit is not a number of rows.
    """
    if limit is not None and (not isinstance(limit, int) or not 0 <= limit < 2**62):
        raise InputError(f"limit: {limit!r} is not a number of rows: give one from 0, or None for all")
    place = None if after is None else cursor_format.decode(after)
    if limit == 0:
        return Page([], after)
    page = Page[Item]()
    size = 0.0
    async for rows, most in read(place, None if limit is None else limit + 1):
        if limit is None or size + most <= PAGE_BYTES:
            page += rows
            size += most
        else:
            for row in rows:
                page.append(row)
                size += size_of(row)
                if size > PAGE_BYTES:
                    break
        if limit is not None and (len(page) > limit or size > PAGE_BYTES):
            del page[limit:]
            page.next = cursor_format.encode(place_of(page[-1]))
            break
    return page


async def read_rows(
    fetch: Callable[[str, dict[str, Any]], Awaitable[list[TupleRow]]],
    listing: Listing[Any],
    filters: Mapping[str, Any],
    place: Sequence[Any] | None = None,
    *,
    newest_first: bool = False,
    limit: int | None = None,
    of_member: bool = False,
) -> AsyncIterator[tuple[list[TupleRow], float]]:
    """Yield the rows of a list beyond a place, at most ``limit``, those of a statement at a time.

    With them, an upper bound of the memory that they take.

    Args:
        of_member: the caller is a user who is a member of few conversations.
    """
    while limit is None or limit > 0:
        wanted = _CHUNK_ROWS if limit is None else min(_CHUNK_ROWS, limit)
        text, given = listing.statement(filters, place, newest_first=newest_first, limit=wanted, of_member=of_member)
        rows = await fetch(text, given)
        objects = OBJECT_BYTES * len(rows)
        yield rows, objects + _MOST_UNDERESTIMATED * (rows[-1][-1] - objects) if rows else 0
        if len(rows) < wanted and (not rows or rows[-1][-1] < _CHUNK_BYTES):
            return
        if limit is not None:
            limit -= len(rows)
        place = listing.place_of(rows[-1])


def row_bytes(row: TupleRow) -> int:
    """Return about how much memory a row takes."""
    return OBJECT_BYTES + sum(map(getsizeof, row))


def check_flag(value: object, name: str) -> None:
    """Raise an InputError if a value is neither True nor False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}: {value!r:.80} is neither True nor False")


# The lists: the statement of each, and the columns of the index that it is read along


@dataclass(frozen=True)
class Column:
    """A column of an order.

    Attributes:
        name: its name in the statement.
        index: the index in a row of its value or, with an offset, of its value less the offset.
        type: of its value.
        offset: an expression of the statement; the order is that of the column less the offset.
    """

    name: str
    index: int
    type: type
    offset: str = ""


@dataclass(frozen=True, eq=False)
class Listing(Generic[Row]):
    """A list that is read in pages.

    Attributes:
        kind: what it holds, in words.
        query: the name of its statement.
        fixed: the columns that have one value in all its rows, by the filter that gives the value.
        order: the columns by which it is ordered.
        row_type: of its rows.
        projections: the projections that maintain the tables it is read from.
        table: if it is one of all conversations, its table, with the alias that the statement gives it.
        conversation: the column of this table that has the id of the conversation.
    """

    kind: str
    query: str
    fixed: Mapping[str, str]
    order: tuple[Column, ...]
    row_type: type[Row]
    projections: tuple[str, ...]
    table: str = ""
    conversation: str = "conversation_id"

    @cached_property
    def types(self) -> tuple[type, ...]:
        """The types of the columns of its order."""
        return tuple(column.type for column in self.order)

    def place_of(self, row: TupleRow) -> list[Any]:
        """Return the place of a row in the order."""
        return [row[column.index] for column in self.order]

    def statement(
        self,
        filters: Mapping[str, Any],
        place: Sequence[Any] | None,
        *,
        newest_first: bool,
        limit: int,
        of_member: bool = False,
    ) -> tuple[str, dict[str, Any]]:
        """Return the statement for the rows beyond a place, planned for just these filters, and its parameters.

        Args:
            of_member: see :func:`read_rows`.
        """
        # How the low and the high end of the list compare with the rows, and the places where they are.
        edges: dict[str, tuple[str, Sequence[Any]]] = {}
        by_index = set(self.fixed)
        if self.types[0] is datetime:  # a range of time is a range of the order
            by_index |= {"since", "until"}
            lowest = [_LOWEST[column_type] for column_type in self.types[1:]]
            if filters.get("since") is not None:
                edges["low"] = ">=", [filters["since"], *lowest]
            if filters.get("until") is not None:
                edges["high"] = "<", [filters["until"], *lowest]
        if place is not None:
            edges["high" if newest_first else "low"] = "<" if newest_first else ">", place
        conditions = {name: _typed(filters[name]) for name in self.filters - by_index if filters.get(name) is not None}
        comparisons = tuple((name, comparison) for name, (comparison, _) in edges.items())
        parameters = (
            conditions
            | {name: filters[name] for name in self.fixed}
            | {
                "limit": Int8(limit),
                "bytes": float(_CHUNK_BYTES),  # as the sizes are: the server would compute a cast for each row
            }
        )
        for name, (_, values) in edges.items():
            parameters |= {f"{name}_{number}": _typed(value) for number, value in enumerate(values)}
        return _statement(self, frozenset(conditions), comparisons, newest_first, of_member), parameters

    @cached_property
    def filters(self) -> frozenset[str]:
        """The parameters of the statement, each in a line that is left out without it."""
        return frozenset(re.findall(r"%\((\w+)\)s", query("projections", self.query))) - {"limit", "bytes"}


_LOWEST: dict[type, Any] = {UUID: UUID(int=0), int: 0}
"""The lowest value of each type that follows a time in an order."""


@cache
def _statement(
    listing: Listing[Any],
    conditions: frozenset[str],
    comparisons: tuple[tuple[str, str], ...],
    newest_first: bool,
    of_member: bool,
) -> str:
    """Return the text of a listing's statement with these conditions and comparisons."""
    columns = ", ".join(column.name for column in listing.order)
    within = [f"{column} = %({name})s" for name, column in listing.fixed.items()]
    for name, comparison in comparisons:
        values = ", ".join(f"%({name}_{number})s{column.offset}" for number, column in enumerate(listing.order))
        within.append(f"({columns}) {comparison} ({values})")
    direction = "DESC" if newest_first else "ASC"
    order = ", ".join(f"{column.name} {direction}" for column in listing.order)
    text = query_without("projections", listing.query, listing.filters - conditions)
    if of_member:
        table, alias = listing.table.split()
        rows = query("projections", "rows_of_member")
        rows = rows.replace("{table}", table).replace("{conversation}", listing.conversation)
        text = text.replace(f"FROM {listing.table}\n", f"FROM {rows} AS {alias}\n", 1)
    # Not str.format: other braces in the text are JSON.
    for part, replacement in (
        ("{within}", "\n   AND ".join(within) or "true"),
        ("{order}", order),
        ("{direction}", direction),
    ):
        text = text.replace(part, replacement)
    return text


def _typed(value: Any) -> Any:
    """Return a value whose type does not depend on its size: the driver would prepare a statement for each type."""
    return Int8(value) if type(value) is int else value


CONVERSATIONS = {
    by: Listing(
        f"conversations by {by}_at",
        "conversations",
        {"tenant": "c.tenant_id"},
        (Column(f"c.{by}_at", index, datetime), Column("c.id", 0, UUID)),
        Conversation,
        ("conversations",),
        "conversations c",
        "id",
    )
    for by, index in (("created", 3), ("updated", 4))
}
CONVERSATIONS_OF_ACTOR = {
    by: Listing(
        f"conversations of an actor by {by}_at",
        "conversations_of_actor",
        {"tenant": "a.tenant_id", "actor": "a.actor"},
        (Column(f"a.{by}_at", index, datetime), Column("a.conversation_id", 0, UUID)),
        Conversation,
        ("conversations", "actors"),
    )
    for by, index in (("created", 3), ("updated", 13))
}

MESSAGES = Listing(
    "messages of a conversation",
    "messages_of_conversation",
    {},
    (Column("m.version", 15, int, " + a.shift"),),
    Message,
    ("messages", "conversations"),
)
ALL_MESSAGES = Listing(
    "messages of all conversations",
    "messages",
    {"tenant": "m.tenant_id"},
    (Column("m.created_at", 5, datetime), Column("m.conversation_id", 1, UUID), Column("m.version", 9, int)),
    Message,
    ("messages", "conversations"),
    "messages m",
)

_ALL_TASKS_ORDER = (
    Column("t.created_at", 4, datetime), Column("t.conversation_id", 1, UUID), Column("t.id", 0, UUID)
)  # fmt: skip
_TASKS_ORDER = (Column("t.created_at", 4, datetime), Column("t.id", 0, UUID))
TASKS = Listing(
    "tasks of a conversation",
    "tasks_of_conversation",
    {},
    _TASKS_ORDER,
    Task,
    ("tasks", "conversations"),
)
FOLDED_TASKS = Listing("tasks of a conversation", "tasks", {"tenant": "t.tenant_id"}, _TASKS_ORDER, Task, ())
"""The same list, of the tables that :func:`projections.conversation_snapshot.folded_tasks` fills."""
ALL_TASKS = Listing(
    "tasks of all conversations",
    "tasks",
    {"tenant": "t.tenant_id"},
    _ALL_TASKS_ORDER,
    Task,
    ("tasks", "conversations"),
    "tasks t",
)
ALL_TASKS_IN_STATUS = Listing(
    "tasks of all conversations in a status",
    "tasks",
    {"tenant": "t.tenant_id", "status": "t.status"},
    _ALL_TASKS_ORDER,
    Task,
    ("tasks", "conversations"),
    "tasks t",
)


# Cursors: the place where a page ended, as an opaque text

_CHECKSUM_BYTES = 6
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HIGHEST = 2**63 - 1


@dataclass(frozen=True)
class CursorFormat:
    """The cursors of one list in one order with the same filters.

    Attributes:
        kind: of the list, in words.
        newest_first: the order.
        filters: everything else that decides which rows are in the list.
        types: the types of the values that make a place in the order: ``datetime``, ``UUID`` or ``int``.
    """

    kind: str
    newest_first: bool
    filters: Mapping[str, Any]
    types: Sequence[type]

    def __post_init__(self) -> None:
        check_flag(self.newest_first, "newest_first")

    @property
    def order(self) -> str:
        """The order in words."""
        return "newest first" if self.newest_first else "oldest first"

    def encode(self, place: Sequence[Any]) -> str:
        """Return the cursor of the rows beyond a place."""
        members = [self.kind, self.order, self._filters_hash, *map(_to_json, place)]
        body = json.dumps(members, separators=(",", ":")).encode()
        return urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")

    def decode(self, cursor: str) -> tuple[Any, ...]:
        """Return the place that a cursor stands for.

        Raises:
            InvalidCursor: it is damaged, or was made for something else.
        """
        if not isinstance(cursor, str):
            raise InvalidCursor(f"a {type(cursor).__name__} is not a cursor: give the next of a page, as it was")
        try:
            decoded = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            body = decoded[_CHECKSUM_BYTES:]
            if decoded[:_CHECKSUM_BYTES] != _checksum(body):
                raise _damaged(cursor)
            kind, order, filters_hash, *place = json.loads(body.decode())
        except (ValueError, TypeError):  # ValueError also for Base64
            raise _damaged(cursor) from None
        if kind != self.kind:
            raise InvalidCursor(f"the cursor is one of {kind}, not of {self.kind}: begin this list without a cursor")
        if order != self.order:
            raise InvalidCursor(f"the cursor is of a list in the order {order}, not {self.order}: keep the order")
        if filters_hash != self._filters_hash:
            raise InvalidCursor(
                "the cursor is of a list of another tenant or with other filters: keep them as they were"
            )
        try:
            return tuple(_from_json(value_type, value) for value_type, value in zip(self.types, place, strict=True))
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise _damaged(cursor) from None

    @cached_property
    def _filters_hash(self) -> str:
        given = sorted((name, str(_to_json(value))) for name, value in self.filters.items() if value is not None)
        return blake2b(repr(given).encode(), digest_size=9).hexdigest()


def _damaged(cursor: str) -> InvalidCursor:
    return InvalidCursor(
        f"the cursor {printable(cursor, 60)!r} is damaged: give the next of a page, whole and unchanged"
    )


def _checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECKSUM_BYTES).digest()


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    return value.hex if isinstance(value, UUID) else value


def _from_json(value_type: type, value: Any) -> Any:
    if value_type is datetime:
        return _EPOCH + value * _MICROSECOND
    if value_type is UUID:
        return UUID(value)
    if type(value) is not int or abs(value) > _HIGHEST:
        raise ValueError("not a number of the log")
    return value
