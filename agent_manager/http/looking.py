"""The cheap looks at the log and the read tables: whether anything has changed, and which conversation is meant.

Each is one small statement. A mark is taken before what it stands for is read: what was read then may be newer than its
mark, never older, so that a client whose mark is still the present one has missed nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.types.numeric import Int8

from eventstore import Caller, EventStore
from eventstore.database.queries import query
from eventstore.read import horizon, last_event
from projections import Projection, Reader
from projections.position import OF_ALL_SHARES
from projections.reading import not_found

READ_TABLES = ("conversations", "messages", "tasks", "actors")
"""The projections behind everything but search and statistics, which follow a little later."""
HIGHEST_POSITION = 2**63 - 1

_LOOK = query("agent_manager.http", "look").replace("{position}", OF_ALL_SHARES)
_MARK_OF_LOG = query("agent_manager.http", "mark_of_log")
_COME_TO = query("agent_manager.http", "come_to")
_SEEN_OF = query("agent_manager.http", "seen_of")


@dataclass(frozen=True, slots=True)
class ComeTo:
    """A conversation, the version that it has come to, and whether it is deleted."""

    id: UUID
    version: int
    is_deleted: bool


async def mark_of_tables(
    store: EventStore, projections: Sequence[Projection], caller: Caller, *, of_found: bool = False
) -> tuple[int, str]:
    """The position that the projections have applied, and what their tables hold for a caller, as a mark.

    What a user may see changes with the log, before any table does: their mark is that of the log too.

    Args:
        of_found: what is read is of a conversation that was found for the caller just now, so that it need not be.
    """
    given = {
        "projections": [projection.name for projection in projections],
        "tables": [table for projection in projections for table in projection.tables],
    }
    looking = store.tables(caller).fetch(_LOOK, given)
    if caller.user is None or of_found:
        position, mark = (await looking)[0]
    else:
        ((position, mark), *_), of_log = await asyncio.gather(looking, mark_of_log(store))
        mark = f"{mark} {of_log}"
    return int(position), str(mark)


async def mark_of_log(store: EventStore) -> str:
    """What can be seen of the log, as a mark."""
    return str((await store.log(store.caller()).fetch(_MARK_OF_LOG))[0][0])


async def seen_of(reader: Reader, conversations: Collection[UUID]) -> set[UUID]:
    """Those of the conversations that the reader's caller may see."""
    caller = reader.caller
    if caller.user is None or not conversations:
        return set(conversations)
    given = {"tenant": caller.tenant, "user": caller.user, "ids": list(conversations)}
    return {row[0] for row in await reader.store.tables(caller).fetch(_SEEN_OF, given)}


async def come_to(reader: Reader, conversation: UUID | str, position: int = HIGHEST_POSITION) -> ComeTo | None:
    """The conversation that a text names, and the version that it had come to at a position; None if there is none.

    For a user it ends at the same place, and as soon, whether there is none or it is not theirs to see.
    """
    caller = reader.caller
    given = {
        "tenant": caller.tenant,
        "user": caller.user,
        "ids": reader.candidates(conversation),
        "position": Int8(position),
    }
    rows = await reader.store.log(caller).fetch(_COME_TO, given)
    return ComeTo(*rows[0]) if rows else None


async def existing(reader: Reader, conversation: UUID | str) -> ComeTo:
    """The conversation that a text names.

    Raises:
        NotFound: there is none.
    """
    found = await come_to(reader, conversation)
    if found is None:
        raise not_found(conversation)
    return found


async def end_of_log(store: EventStore) -> int:
    """The position of the last event that is final."""
    log = store.log(store.caller())
    return await last_event(log, await horizon(log))
