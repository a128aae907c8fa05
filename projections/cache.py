"""A cache for conversations that are read repeatedly, which never serves a stale state.

A state is *stale* if it lacks an event that the row of the conversation in the table ``conversations``, as committed
when the read began, already includes. The cache serves none, because:

1. Every read begins with a query for the change token of that row, by its primary key: its version, and the files of
   the tables, which are others once a table was refilled or swapped. A cached state is served only if it was read under
   the same token. This query is the one round trip of a hit. Invalidation by the worker could save it, but a message
   that is still on its way would leave a window in which a stale state is served.
2. A cached state is *consistent*: the messages and tasks were read in one snapshot with the version, once their
   projections had applied the event of that version. The projections do not advance together: if some are behind the
   row, the read waits for them. Messages beyond the version are left out; tasks may be newer than it, never older.
   Those that a fork shares are read in the same snapshot, once the projections had applied them, and belong to the
   token: it changes if they are hidden, or may not be read any more.
3. The query is subject to row-level security: a caller who may not see the row gets NotFound, whatever is cached.
   States are cached by the tenant and the user for whom they were read.

A cache belongs to one event loop and serves all its coroutines. The states are shared: do not modify them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple, Self
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from eventstore import Caller
from eventstore.database.queries import query
from eventstore.errors import InputError, conversation_not_found, translated
from projections.conversation_snapshot import ConversationSnapshot, ConversationState, fetch_rows, read_ancestry
from projections.pages import OBJECT_BYTES
from projections.projection import select_projections
from projections.read_your_writes import LAGGING, wait_for_written
from projections.reading import Reader, fetch_current

MAX_BYTES = 64 * 1024 * 1024

_ONE_SNAPSHOT = query("projections", "one_snapshot")
_CHANGE_TOKEN = query("projections", "change_token")
_EVENT_POSITIONS = query("projections", "event_positions")
_PROJECTIONS = ["conversations", "messages", "tasks"]


class ChangeToken(NamedTuple):
    """A change token of a conversation: if two tokens differ, the states may differ.

    Attributes:
        version: of the conversation, as its row has it.
        tables: the files of the tables, the parked events of the conversation, and what it shares if it is a fork.
    """

    id: UUID
    version: int
    tables: tuple[object, ...]

    @classmethod
    def from_row(cls, row: TupleRow) -> Self:
        """Return the token that the query ``change_token`` has read."""
        return cls(row[0], row[1], tuple(row[2:]))


class _Entry(NamedTuple):
    token: ChangeToken
    state: ConversationState
    size: int


class ConversationCache:
    """A cache of the most recently used conversations.

    Args:
        reader: reads the conversations, for its caller.
        max_bytes: about how much all states together take; a larger one is read each time.

    Attributes:
        hits, misses: reads that were served from the cache, and that were not.
    """

    def __init__(self, reader: Reader, max_bytes: int = MAX_BYTES) -> None:
        if not isinstance(max_bytes, int) or max_bytes < 0:
            raise InputError(f"max_bytes: {max_bytes!r} is not a number of bytes")
        from cachetools import LRUCache  # only applications that cache conversations need it

        self._reader = reader
        self._entries: LRUCache[tuple[Caller, UUID], _Entry] = LRUCache(max_bytes, getsizeof=lambda entry: entry.size)
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        """Return the number of cached states."""
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """About how much the cached states take."""
        return int(self._entries.currsize)

    def clear(self) -> None:
        """Remove all states."""
        self._entries.clear()

    async def conversation(self, conversation: UUID | str, *, at_least: int | None = None) -> ConversationState:
        """Return a conversation with all its messages and tasks.

        Args:
            at_least: a position that the state must include, such as that of an append.

        Raises:
            NotFound: the conversation does not exist.
            NotCaughtUp: the workers have not applied enough within the reader's timeout.
        """
        token = await read_change_token(self._reader, conversation, at_least=at_least)
        key = (self._reader.caller, token.id)
        entry = self._entries.get(key)
        if entry is not None and entry.token == token:
            self.hits += 1
            return entry.state
        self.misses += 1
        async with consistent_snapshot(self._reader, token.id) as (token, snapshot):
            state = await snapshot.read()
        current = self._entries.get(key)
        if current is None or current.token.tables != token.tables or current.token.version <= token.version:
            self._entries.pop(key, None)
            size = sum(OBJECT_BYTES + row.size for row in (state.conversation, *state.messages, *state.tasks))
            if size <= self._entries.maxsize:
                self._entries[key] = _Entry(token, state, size)
        return state


async def read_change_token(reader: Reader, conversation: UUID | str, *, at_least: int | None = None) -> ChangeToken:
    """Return the change token of a conversation, read as :meth:`Reader.conversation` reads its row."""
    given = {"tenant": reader.tenant, "ids": reader.candidates(conversation)}
    rows = await fetch_current(reader, _CHANGE_TOKEN, given, _PROJECTIONS, at_least)
    if not rows:
        raise conversation_not_found(conversation)
    return ChangeToken.from_row(rows[0])


@asynccontextmanager
async def consistent_snapshot(
    reader: Reader, conversation_id: UUID
) -> AsyncIterator[tuple[ChangeToken, ConversationSnapshot]]:
    """Open a consistent snapshot of a conversation (see the module), with its token, until the end of the block."""
    store, caller = reader.store, reader.caller
    while True:
        with translated():
            async with store.tables(caller, on_primary=reader.on_primary).pool.transaction(
                caller, _ONE_SNAPSHOT
            ) as connection:
                rows = await fetch_rows(connection, _CHANGE_TOKEN, {"tenant": caller.tenant, "ids": [conversation_id]})
                if not rows:
                    raise conversation_not_found(conversation_id)
                token = ChangeToken.from_row(rows[0])
                _, *shared = await read_ancestry(partial(fetch_rows, connection), caller.tenant, conversation_id)
                versions = {conversation_id: token.version} | dict(shared)
                events = {"tenant": caller.tenant, "conversations": list(versions), "versions": list(versions.values())}
                # They never change, so they may be read outside the snapshot.
                positions: dict[UUID | None, int] = dict(await store.log(caller).fetch(_EVENT_POSITIONS, events))
                if conversation_id not in positions:  # the caller may not see it any more
                    raise conversation_not_found(conversation_id)
                given = {
                    "projections": _PROJECTIONS,
                    "conversations": list(positions),
                    "positions": [Int8(position) for position in positions.values()],
                }
                if not await fetch_rows(connection, LAGGING, given):
                    snapshot = await ConversationSnapshot.open(store, connection, caller.tenant, conversation_id)
                    if snapshot is None:
                        raise conversation_not_found(conversation_id)
                    yield token, snapshot
                    return
        await wait_for_written(
            store,
            select_projections(_PROJECTIONS),
            positions,
            timeout=reader.timeout,
            on_primary=reader.on_primary,
        )
