"""A cache for conversations that are read again and again, which never serves a stale state.

A state is *stale* if it lacks an event that the row of the conversation in the table ``conversations``, as it was
committed when the read began, already holds. That the cache serves none follows from two things:

1. Every read begins with a look at that row's version, by its primary key. A state that is kept is served only where it
   is of just this version, and read from just the tables that are there now: a table that was refilled or swapped has
   another file. This is the one round trip of a hit. A wake-up by the worker could save it, but a message that is still
   on its way opens a window in which an old state would be served; so it is not asked for one.
2. A state is kept only if it is *whole*: the messages and tasks were read in one snapshot with the version, once their
   projections had applied the event of that version. The projections do not advance together: where they are behind the
   row, the read waits for them. Messages beyond the version are left out; tasks may be newer than it, never older.
3. The look is walled: who may not see the row is told that there is none, whatever is kept. States are kept by the
   tenant and the user for whom they were read.

One cache belongs to one event loop and serves all its coroutines. The states are shared: do not change what is in them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from eventstore import Caller
from eventstore.database.queries import query
from eventstore.errors import InputError, translated
from projections.checkpoints import LAGGING, wait_for_written
from projections.conversation_snapshot import ConversationSnapshot, ConversationState, fetch_rows
from projections.projection import named
from projections.read_your_writes import fetch_at_least
from projections.reading import Reader, not_found

MAX_BYTES = 64 * 1024 * 1024

_ONE_SNAPSHOT = query("projections", "one_snapshot")
_CACHED = query("projections", "cached")
_EVENT = query("projections", "event_position")
_READ_FROM = ("conversations", "messages", "tasks")
_ROW_BYTES = 1000
"""About what Python's objects around a row take."""


class ConversationMark(NamedTuple):
    """What a state of a conversation was read from: another mark, perhaps another state.

    Attributes:
        id: of the conversation.
        version: of the conversation, as its row has it.
        tables: their files, and what of the conversation is parked.
    """

    id: UUID
    version: int
    tables: tuple[object, ...]


class _Kept(NamedTuple):
    """A state, and what it was read from."""

    mark: ConversationMark
    state: ConversationState
    size: int


_Key = tuple[Caller, UUID]


class ConversationCache:
    """Reads whole conversations through a cache of the least recently used.

    Args:
        reader: whose caller's conversations.
        max_bytes: of all states together, about; a larger one is read each time.

    Attributes:
        hits, misses: reads that were served from the cache, and that were not.
    """

    def __init__(self, reader: Reader, max_bytes: int = MAX_BYTES) -> None:
        if not isinstance(max_bytes, int) or max_bytes < 0:
            raise InputError(f"max_bytes: {max_bytes!r} is no number of bytes")
        self._reader = reader
        from cachetools import LRUCache  # only applications that cache conversations need it

        self._kept: LRUCache[_Key, _Kept] = LRUCache(max_bytes, getsizeof=lambda kept: kept.size)
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        """How many states are kept."""
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """What the kept states take, about."""
        return int(self._kept.currsize)

    def clear(self) -> None:
        """Forgets all states."""
        self._kept.clear()

    async def conversation(self, conversation: UUID | str, *, at_least: int | None = None) -> ConversationState:
        """A conversation with all its messages and tasks.

        Args:
            at_least: a position that the state must hold, such as that of an append.

        Raises:
            NotFound: there is none.
            NotCaughtUp: the workers have not come far enough within the reader's time.
        """
        found = await conversation_mark(self._reader, conversation, at_least=at_least)
        key = (self._reader.caller, found.id)
        kept = self._kept.get(key)
        if kept is not None and kept.mark == found:
            self.hits += 1
            return kept.state
        self.misses += 1
        async with whole_snapshot(self._reader, found.id) as (mark, snapshot):
            state = await snapshot.read()
        read = _Kept(mark, state, _size(state))
        before = self._kept.get(key)
        if before is None or before.mark.tables != mark.tables or before.mark.version <= mark.version:
            self._kept.pop(key, None)
            if read.size <= self._kept.maxsize:
                self._kept[key] = read
        return state


async def conversation_mark(
    reader: Reader, conversation: UUID | str, *, at_least: int | None = None
) -> ConversationMark:
    """Return what tells whether a state of a conversation that was read before is still the present one.

    Raises:
        NotFound: there is no such conversation.
        NotCaughtUp: the projections have not applied ``at_least`` within the reader's time.
    """
    given = {"tenant": reader.tenant, "ids": reader.candidates(conversation)}
    rows = await fetch_at_least(reader.store, reader.caller, _CACHED, given, _READ_FROM, at_least, reader.timeout)
    if not rows:
        raise not_found(conversation)
    return _mark(rows[0])


@asynccontextmanager
async def whole_snapshot(
    reader: Reader, conversation_id: UUID
) -> AsyncIterator[tuple[ConversationMark, ConversationSnapshot]]:
    """A whole conversation, see the module, until the end of the block, and its mark.

    Raises:
        NotFound: there is no such conversation.
        NotCaughtUp: the workers have not come far enough within the reader's time.
    """
    store, caller = reader.store, reader.caller
    while True:
        with translated():
            async with store.connections.reader.transaction(caller, _ONE_SNAPSHOT) as connection:
                rows = await fetch_rows(connection, _CACHED, {"tenant": caller.tenant, "ids": [conversation_id]})
                if not rows:
                    raise not_found(conversation_id)
                mark = _mark(rows[0])
                event = {
                    "tenant": caller.tenant,
                    "conversation_id": conversation_id,
                    "version": Int8(mark.version),
                }
                found = await store.log(caller).fetch(_EVENT, event)  # it never changes, whoever looks when
                if not found:  # the caller may see it no longer
                    raise not_found(conversation_id)
                [(position,)] = found
                missing = {
                    "projections": list(_READ_FROM),
                    "conversations": [conversation_id],
                    "positions": [Int8(position)],
                }
                if not await fetch_rows(connection, LAGGING, missing):
                    snapshot = await ConversationSnapshot.open(connection, caller.tenant, conversation_id)
                    if snapshot is None:
                        raise not_found(conversation_id)
                    yield mark, snapshot
                    return
        await wait_for_written(store, named(list(_READ_FROM)), {conversation_id: int(position)}, timeout=reader.timeout)


def _mark(row: TupleRow) -> ConversationMark:
    return ConversationMark(row[0], row[1], tuple(row[2:]))


def _size(state: ConversationState) -> int:
    """About what a state takes in memory."""
    rows = [state.conversation, *state.messages, *state.tasks]
    return sum(_ROW_BYTES + row.size for row in rows)
