"""Snapshots: a conversation with its messages and tasks as one transaction sees it, at present or in the past.

A conversation as it was is folded from its events by the projections' definitions. These read the relation ``batch``
and write unqualified names of tables. In a transaction that is rolled back, temporary tables have these names: empty
ones like the read tables, and a ``batch`` of the conversation's events up to then. So the result is what the
projections would have made, and no other session sees anything of it.

A fork shows what it shares from the rows of the conversations in which it was written (``conversation_ancestry``). That
is right for messages, which do not change, and for tasks that have not changed since. A task that has, in one of these
conversations or in the fork, is folded from the events that belong to the fork (:func:`folded_tasks`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, Self
from uuid import UUID

from psycopg import sql
from psycopg.rows import TupleRow

from eventstore import Caller, EventStore
from eventstore.database.connection import PROJECTOR, Connection, set_role
from eventstore.database.queries import query, query_without
from eventstore.errors import InputError, NotFound, translated
from eventstore.read import RawRows
from projections.pages import FOLDED_TASKS, MESSAGES, TASKS, read_rows
from projections.projection import Projection, select_projections
from projections.rows import Conversation, Message, Task

_CONVERSATION = query("projections", "conversation")
_ANCESTRY = query("projections", "ancestry")
_MUST_FOLD = 15
"""The index in a row of the list of tasks of a conversation that tells whether the task must be folded."""

Fetch = Callable[[str, dict[str, Any]], Awaitable[list[TupleRow]]]
"""A function that returns the rows of a statement."""


@dataclass(frozen=True, slots=True)
class ConversationState:
    """A conversation with all its messages and tasks, in the orders in which the Reader returns them."""

    conversation: Conversation
    messages: tuple[Message, ...]
    tasks: tuple[Task, ...]

    @property
    def version(self) -> int:
        """The conversation's version."""
        return self.conversation.version


class ConversationSnapshot:
    """A conversation in the tables that a connection sees, read in chunks.

    Args:
        store: reads the log, for the tasks of a fork.
        connection: in a transaction whose statements all see the same snapshot.

    Attributes:
        conversation: the row of the conversation.
    """

    def __init__(self, store: EventStore, connection: Connection, tenant: str, conversation: Conversation) -> None:
        self.conversation = conversation
        self._store = store
        self._fetch = partial(fetch_rows, connection)
        self._filters = {"tenant": tenant, "conversation_id": conversation.id}

    @classmethod
    async def open(cls, store: EventStore, connection: Connection, tenant: str, conversation_id: UUID) -> Self | None:
        """Return the snapshot of a conversation; None if the tables do not have it."""
        rows = await fetch_rows(connection, _CONVERSATION, {"tenant": tenant, "ids": [conversation_id]})
        return cls(store, connection, tenant, Conversation.from_row(rows[0])) if rows else None

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Yield the messages that it shares, then its own up to the version of the conversation's row."""
        async for rows, _ in read_rows(self._fetch, MESSAGES, self._filters):
            for message in map(Message.from_row, rows):
                if message.conversation_id != self.conversation.id or message.version <= self.conversation.version:
                    yield message

    async def tasks(self) -> AsyncGenerator[Task, None]:
        """Yield the tasks."""
        async for rows, _ in read_tasks(self._store, self._fetch, self._filters):
            for row in rows:
                yield Task.from_row(row)

    async def read(self) -> ConversationState:
        """Return all of it."""
        messages = [message async for message in self.messages()]
        tasks = [task async for task in self.tasks()]
        return ConversationState(self.conversation, tuple(messages), tuple(tasks))


async def fetch_rows(connection: Connection, text: str, given: Mapping[str, Any]) -> list[TupleRow]:
    """Return the rows of a statement, JSON as the bytes that came."""
    return await (await RawRows(connection).execute(text.encode(), given)).fetchall()


# The tasks of a fork


class Ancestor(NamedTuple):
    """A conversation whose rows a conversation shows, and the version up to which it does."""

    conversation_id: UUID
    last_version: int


async def read_ancestry(fetch: Fetch, tenant: str, conversation_id: UUID) -> list[Ancestor]:
    """Return a conversation and, if it is a fork, those that it shares rows of, as far as they may be read.

    The nearest one comes first.
    """
    rows = await fetch(_ANCESTRY, {"tenant": tenant, "conversation_id": conversation_id})
    return [Ancestor(*row) for row in rows]


async def read_tasks(
    store: EventStore,
    fetch: Fetch,
    filters: Mapping[str, Any],
    place: Sequence[Any] | None = None,
    *,
    newest_first: bool = False,
    limit: int | None = None,
) -> AsyncIterator[tuple[list[TupleRow], float]]:
    """Yield rows of the tasks of a conversation, see :func:`projections.pages.read_rows`.

    They are rows of the tables up to the first one that is not the state that the conversation shows.
    """
    async for rows, most in read_rows(fetch, TASKS, filters, place, newest_first=newest_first, limit=limit):
        if not any(row[_MUST_FOLD] for row in rows):
            yield rows, most
            if rows:
                place = TASKS.place_of(rows[-1])
                limit = None if limit is None else limit - len(rows)
            continue
        tenant, conversation_id = filters["tenant"], filters["conversation_id"]
        ancestry = await read_ancestry(fetch, tenant, conversation_id)
        async with folded_tasks(store, tenant, ancestry) as fetch_folded:
            async for chunk in read_rows(
                fetch_folded, FOLDED_TASKS, filters, place, newest_first=newest_first, limit=limit
            ):
                yield chunk
        return


@asynccontextmanager
async def folded_tasks(store: EventStore, tenant: str, ancestry: Sequence[Ancestor]) -> AsyncIterator[Fetch]:
    """Fold the tasks of a conversation from the log, and yield what fetches rows of them.

    Args:
        ancestry: the conversation and those that it shares rows of, the nearest first.
    """
    async with _empty_tables(store, tenant, _TASKS) as connection:
        await _insert_shared(connection, tenant, ancestry, {"types": "task.%"})
        await _fold_tasks(connection, ancestry)
        yield partial(fetch_rows, connection)


async def _fold_tasks(connection: Connection, ancestry: Sequence[Ancestor]) -> None:
    """Fold the tasks of a batch with the events of a conversation and of those that it shares rows of."""
    if len(ancestry) > 1:  # otherwise the projection does it
        for conversation_id, version, to_version in await (await connection.execute(_REWINDS.encode())).fetchall():
            rewind = {"conversation_id": conversation_id, "version": version, "to_version": to_version}
            await connection.execute(_HIDE_TASKS.encode(), rewind)
    reached: dict[UUID, int] = dict(await (await connection.execute(_REACHED.encode())).fetchall())
    ids = [ancestor.conversation_id for ancestor in reversed(ancestry)]
    bases = list(accumulate((reached.get(each, 0) for each in ids), initial=0))
    given = {"conversation_id": ids[-1], "ids": ids, "bases": bases[:-1], "ends": bases[1:]}
    await connection.execute(_JOIN_TASKS.encode(), given)
    for projection in _TASKS:
        await projection.fold(connection)
    await connection.execute(_SEPARATE_TASKS.encode(), given)
    await connection.execute(_SEPARATE_ARTIFACTS.encode())


# A conversation as it was


class MessagePage(NamedTuple):
    """Some of the messages of a conversation: the last ones, or the first ones from a version on."""

    limit: int
    from_version: int | None = None


_ROWS = select_projections(["conversations", "messages"])
_TASKS = select_projections(["tasks"])
_LIMITS = frozenset(("version", "position", "time"))
_VERSIONS = query("projections", "as_of_versions")
_UNTIL = frozenset(("position", "time"))
_SHARED = query("projections", "as_of_shared")
_REACHED = query("projections", "as_of_reached")
_REWINDS = query("projections", "rewinds")
_HIDE_TASKS = query("projections", "hide_tasks")
_JOIN_TASKS = query("projections", "join_tasks")
_SEPARATE_TASKS = query("projections", "separate_tasks")
_SEPARATE_ARTIFACTS = query("projections", "separate_artifacts")
_PAGE = frozenset(("first", "from_version"))
_OTHER_MESSAGES = query("projections", "as_of_other_messages")
_CREATE_BATCH = query("projections", "as_of_batch")
_CREATE_TABLE = sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING GENERATED)")


@asynccontextmanager
async def snapshot_as_of(
    store: EventStore,
    caller: Caller,
    candidates: list[UUID],
    limits: Mapping[str, int | datetime | None],
    page: MessagePage | None = None,
) -> AsyncIterator[ConversationSnapshot | None]:
    """Open a snapshot of a conversation as it was, until the end of the block.

    A fork shows what it shared then: by position or time, unless the conversation that it continues was deleted then;
    by version, unless it is deleted now.

    Args:
        candidates: the first of them that the caller can see is meant; if there is none, the snapshot is None.
        limits: ``version``, ``position`` and ``time``; exactly one is not None.
        page: of its own messages, only these and the first event are folded; the others are only counted.

    Raises:
        InputError: not exactly one of the three is given, or its value is not valid.
        NotFound: the conversation had not begun then, or has not reached that version.
    """
    name, value = _checked_limit(limits)
    # Row-level security decides whether the caller sees it; the projector, which folds it then, sees everything.
    given = {"tenant": caller.tenant, "ids": candidates}
    versions: dict[UUID, int] = dict(await store.log(caller).fetch(_VERSIONS, given))
    found = next((candidate for candidate in candidates if candidate in versions), None)
    if found is None:
        yield None
        return
    if name == "version" and value > versions[found]:
        raise NotFound(f"conversation {found} is at version {versions[found]}: it has no version {value} yet")
    # Before the transaction begins: behind a pooler with few sessions, a transaction must not wait for another one.
    shared = await shared_then(store, caller, found, {name: value})
    async with _empty_tables(store, caller.tenant, (*_ROWS, *_TASKS)) as connection:
        until: dict[str, Any] = {"tenant": caller.tenant, "conversation_id": found, name: value}
        if page is not None:
            until |= await _bounds(connection, page, until)
        text = query_without("projections", "as_of_events", (_LIMITS | _PAGE).difference(until))
        if (await connection.execute(text.encode(), until)).rowcount == 0:
            raise NotFound(f"conversation {found} had not begun at {name} {value}: give a later {name}")
        limit = {name: value} if name in _UNTIL else {}
        await _insert_shared(connection, caller.tenant, shared, limit)
        for projection in _ROWS:
            await projection.fold(connection)
        if page is not None:
            await connection.execute(_OTHER_MESSAGES.encode(), until)
        await connection.execute(_SHARED.encode(), {"conversation_id": found})
        await _fold_tasks(connection, [Ancestor(found, versions[found]), *shared])
        snapshot = await ConversationSnapshot.open(store, connection, caller.tenant, found)
        assert snapshot is not None
        yield snapshot


async def _bounds(connection: Connection, page: MessagePage, given: dict[str, Any]) -> dict[str, int]:
    """Return the version that a conversation had, and the versions of the first and the last message of a page."""
    given = given | {name: value for name, value in page._asdict().items() if value is not None}
    text = query_without("projections", "as_of_page", (_LIMITS | _PAGE).difference(given))
    text = text.replace("{direction}", "DESC" if page.from_version is None else "ASC")
    [(version, first, last)] = await (await connection.execute(text.encode(), given)).fetchall()
    return {"version": version or 0, "first": first, "last": last}


async def shared_then(
    store: EventStore, caller: Caller, conversation_id: UUID, limit: Mapping[str, Any]
) -> list[Ancestor]:
    """Return the conversations that a fork shared rows of then, by the rules of ``conversation_ancestry``.

    They are found in the log, which needs no worker; the nearest one comes first.

    Args:
        limit: the ``position`` or the ``time``; without one, now.
    """
    text = query_without("projections", "as_of_ancestry", _UNTIL.difference(limit))
    given = {"tenant": caller.tenant, "conversation_id": conversation_id, **limit}
    return [Ancestor(*row) for row in await store.log(caller).fetch(text, given)]


@asynccontextmanager
async def _empty_tables(store: EventStore, tenant: str, projections: Sequence[Projection]) -> AsyncIterator[Connection]:
    """Open a transaction with an empty batch, and an empty copy of each table of the projections, until its end."""
    async with store.connections.separate(PROJECTOR, tenant) as connection:
        with translated():
            async with connection.transaction(force_rollback=True):
                await set_role(connection, store.settings, PROJECTOR)  # a pooler may lend another session
                tables = [table for projection in projections for table in projection.tables]
                originals = [sql.Identifier(store.settings.db_schema, table) for table in tables]
                created = map(_CREATE_TABLE.format, map(sql.Identifier, tables), originals)
                await connection.execute(sql.SQL(";").join([sql.SQL(_CREATE_BATCH), *created]))
                yield connection


async def _insert_shared(
    connection: Connection, tenant: str, ancestry: Sequence[Ancestor], limits: Mapping[str, Any]
) -> None:
    """Add the events of conversations up to a version to the batch.

    Args:
        limits: ``types``, a pattern of the types of the events; and ``position`` or ``time``, if what these
            conversations have hidden or deleted since is not hidden.
    """
    text = query_without("projections", "as_of_shared_events", (_UNTIL | {"types"}).difference(limits))
    ids, versions = [each.conversation_id for each in ancestry], [each.last_version for each in ancestry]
    await connection.execute(text.encode(), {"tenant": tenant, "ids": ids, "versions": versions, **limits})


def _checked_limit(limits: Mapping[str, Any]) -> tuple[str, Any]:
    given = [(name, value) for name, value in limits.items() if value is not None]
    if len(given) != 1:
        raise InputError("version, position, time: give exactly one of them")
    [(name, value)] = given
    if name == "time":
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise InputError(f"time: {value!r} is not a datetime with a time zone")
    elif not isinstance(value, int) or not 0 <= value < (2**31 if name == "version" else 2**63):
        raise InputError(f"{name}: {value!r} is not a {name}: give a number from 1")
    return name, value
