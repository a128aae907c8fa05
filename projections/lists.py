"""The lists that can be read in pages: the statement of each, and the columns of the index that it goes along.

The index begins with what is the same for all rows of the list; then come the columns of its order, the last of which
make it total. None of them ever changes in a row, except the time of a conversation's last update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from typing import Any, Generic, TypeVar
from uuid import UUID

from psycopg.types.numeric import Int8

from eventstore.database.queries import query_without
from projections.rows import Conversation, Message, Task

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
