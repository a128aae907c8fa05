"""What cannot be digested: an event that a projection fails on parks its conversation in that projection.

Only errors of the data park (SQLSTATE classes 22 and 23, and what a projection in Python raises of itself); a deadlock,
a full disk or a lost connection is no fault of the event, and the batch is tried again. The failing event is found by
halving the batch under savepoints, from the left, so that whatever stands before it in its conversation is applied,
and nothing after it: once the conversation is parked, the relation ``batch`` no longer shows its further events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg

from eventstore import EventStore
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, printable
from projections.projection import PROJECTIONS, Projection

OF_THE_DATA = ("22", "23")
"""Classes of SQLSTATE."""
PYTHON = "PYERR"
"""In the place of an SQLSTATE, for what a projection in Python raises."""

_BOUNDS = query("projections", "bounds")
_PARK = query("projections", "park")
_PARKED = query("projections", "parked")
_LONGEST_ERROR = 2000


class Undigestible(Exception):
    """A projection in Python raised something of itself."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A conversation that a projection does not go on with.

    Attributes:
        position, version, event_id, event_type: of the event that failed.
        sqlstate: of its error; ``PYERR`` where a projection in Python raised it.
        tries: how often it has failed.
    """

    projection: str
    tenant_id: str
    conversation_id: UUID
    position: int
    version: int
    event_id: UUID
    event_type: str
    sqlstate: str
    error: str
    tries: int
    parked_at: datetime


async def parked(
    store: EventStore, projections: Sequence[Projection] = PROJECTIONS, *, tenant: str | None = None
) -> list[Parked]:
    """What is parked in the live tables, the oldest first.

    Args:
        tenant: only of this one.
    """
    names = [projection.name for projection in projections]
    rows = await store.parts.projector.fetch(_PARKED, {"projections": names, "tenant": tenant})
    return [Parked(*row) for row in rows]


def is_of_the_data(error: BaseException) -> bool:
    """Whether an event, and not the server or the moment, is at fault."""
    while isinstance(error, EventStoreError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, psycopg.Error):
        return (error.sqlstate or "")[:2] in OF_THE_DATA
    return isinstance(error, Undigestible)


async def fold_carefully(
    connection: Connection, projection: Projection, stage: str, lower: int, upper: int, *, tries: int = 1
) -> int:
    """Applies the open batch, less what cannot be digested, which it parks.

    Args:
        lower, upper: the positions that it shows, the first excluded.
        tries: what to note as the number of failures.

    Returns:
        How many conversations were parked.
    """
    # What is checked at the end of a transaction must fail within the savepoint.
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    return await _halve(connection, projection, stage, lower, upper, tries)


async def _halve(connection: Connection, projection: Projection, stage: str, lower: int, upper: int, tries: int) -> int:
    await connection.execute(_BOUNDS, {"lower": str(lower), "upper": str(upper)})
    try:
        async with connection.transaction():
            await projection.fold(connection)
        return 0
    except (psycopg.Error, Undigestible) as error:
        if not is_of_the_data(error):
            raise
        failure = error
    shown = await connection.execute("SELECT position FROM batch ORDER BY position")
    positions = [row[0] for row in await shown.fetchall()]
    if len(positions) > 1:
        middle = positions[len(positions) // 2 - 1]
        return await _halve(connection, projection, stage, lower, middle, tries) + await _halve(
            connection, projection, stage, middle, upper, tries
        )
    parameters = {
        "projection": projection.name,
        "stage": stage,
        "sqlstate": failure.sqlstate if isinstance(failure, psycopg.Error) else PYTHON,
        "error": printable(str(failure).strip(), _LONGEST_ERROR),
        "tries": tries,
    }
    return (await connection.execute(_PARK, parameters)).rowcount
