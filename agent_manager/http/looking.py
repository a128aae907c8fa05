"""The cheap looks at the log and the read tables: whether anything has changed, and which conversation is meant.

Each is one small statement. A mark is taken before what it stands for is read: what was read then may be newer than its
mark, never older, so that a client whose mark is still the present one has missed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.types.numeric import Int8

from eventstore import EventStore
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


@dataclass(frozen=True, slots=True)
class ComeTo:
    """A conversation, and the version that it has come to."""

    id: UUID
    version: int


async def mark_of_tables(store: EventStore, projections: Sequence[Projection]) -> tuple[int, str]:
    """The position that the projections have applied, and what their tables hold, as a mark."""
    given = {
        "projections": [projection.name for projection in projections],
        "tables": [table for projection in projections for table in projection.tables],
    }
    position, mark = (await store.pool.fetch(_LOOK, given))[0]
    return int(position), str(mark)


async def mark_of_log(store: EventStore) -> str:
    """What can be seen of the log, as a mark."""
    return str((await store.pool.fetch(_MARK_OF_LOG))[0][0])


async def come_to(reader: Reader, conversation: UUID | str, position: int = HIGHEST_POSITION) -> ComeTo | None:
    """The conversation that a text names, and the version that it had come to at a position; None if there is none."""
    given = {"tenant": reader.tenant, "ids": reader.candidates(conversation), "position": Int8(position)}
    rows = await reader.store.pool.fetch(_COME_TO, given)
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
    return await last_event(store.pool, await horizon(store.pool))
