"""What cannot be applied: an event that a projection fails on parks its conversation in that projection.

Three kinds of errors are told apart by their SQLSTATE:

- The server's or the connection's own state (a deadlock, a full disk, a lost connection) is not the event's fault. The
  batch is rolled back and tried again. If a worker meets such an error again and again over a connection that works,
  it is taken for one of the third kind.
- An error of the data (a value, a constraint, a limit such as the size of an index row; whatever a projection in
  Python raises of itself) parks.
- Any other error parks only what can be isolated: the projection must succeed on something else, which shows that the
  projection and the server work. That is another event of the batch; if the batch holds one event, an empty batch.
  The latter proves nothing where an event is needed to reach what is missing (a function, a privilege, memory, time):
  then the event is tried again until others have come. If everything fails, nothing is parked.

So no conversation holds up the others for longer than it takes to find it: its failing event is found by halving the
batch under savepoints, from the left, so that whatever stands before it in its conversation is applied, and nothing
after it: once the conversation is parked, the relation ``batch`` no longer shows its further events.
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

DATA_ERRORS = ("21", "22", "23", "38", "39", "54", "P0")
"""Classes of SQLSTATE: cardinality, data, constraints, routines, program limits, PL/pgSQL."""
SERVER_ERRORS = ("08", "25", "28", "3D", "40", "53", "55", "57", "58", "ES", "F0")
"""Classes of SQLSTATE: connection, transaction state, login, database, rollback, resources, object state, operator,
system and configuration; and what the functions of the event store refuse."""
POSSIBLE_EVENT_ERRORS = ("53200", "53400", "57014")
"""Of those classes, what a single event can cause: too much memory, too large temporary files, too much time."""
NEEDS_AN_EVENT = ("42", "53", "57")
"""Classes of SQLSTATE for which success on an empty batch proves nothing."""
PERSISTENT_FAILURES = 3
"""Failures of one projection in a row, with growing pauses, after which the server's state is no explanation."""
PYTHON = "PYERR"
"""In the place of an SQLSTATE, for what a projection in Python raises."""

_BOUNDS = query("projections", "bounds")
_PARK = query("projections", "park")
_PARKED = query("projections", "parked")
_LONGEST_ERROR = 2000


class UnprocessableEvent(Exception):
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
    rows = await store.connections.projector.fetch(_PARKED, {"projections": names, "tenant": tenant})
    return [Parked(*row) for row in rows]


def may_be_event_error(error: BaseException, *, is_persistent: bool = False) -> bool:
    """Return whether an event may be at fault, so that the batch is worth isolating it.

    Args:
        is_persistent: the projection has failed several times in a row.
    """
    while isinstance(error, EventStoreError) and error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, psycopg.Error):
        return isinstance(error, UnprocessableEvent)
    state = error.sqlstate
    return state is not None and (is_persistent or state[:2] not in SERVER_ERRORS or state in POSSIBLE_EVENT_ERRORS)


async def fold_or_park(
    connection: Connection,
    projection: Projection,
    stage: str,
    lower: int,
    upper: int,
    *,
    tries: int = 1,
    is_persistent: bool = False,
) -> int:
    """Apply the open batch, and park the conversations that the projection fails on.

    Args:
        lower, upper: the positions that it shows, the first excluded.
        tries: what to note as the number of failures.
        is_persistent: the projection has failed several times in a row.

    Returns:
        How many conversations were parked.

    Raises:
        psycopg.Error: an error that is not the fault of a conversation; the transaction is to be rolled back.
    """
    # What is checked at the end of a transaction must fail within the savepoint.
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    isolation = _Isolation(connection, projection, stage, tries, is_persistent)
    await isolation.halve(lower, upper)
    await isolation.check(upper)
    return isolation.parked


class _Isolation:
    """The search for the events of a batch that fail by themselves.

    Attributes:
        parked: conversations that were parked.
    """

    def __init__(
        self, connection: Connection, projection: Projection, stage: str, tries: int, is_persistent: bool
    ) -> None:
        self._connection = connection
        self._projection = projection
        self._stage = stage
        self._tries = tries
        self._is_persistent = is_persistent
        self._unclear: list[psycopg.Error] = []
        self._has_applied = False
        self.parked = 0

    async def halve(self, lower: int, upper: int) -> None:
        """Apply the events between two positions, the first excluded, each half by itself where they fail."""
        failure = await self._fold(lower, upper)
        shown = await self._connection.execute("SELECT position FROM batch ORDER BY position")
        positions = [row[0] for row in await shown.fetchall()]
        if failure is None:
            self._has_applied = self._has_applied or bool(positions)
        elif len(positions) > 1:
            middle = positions[len(positions) // 2 - 1]
            await self.halve(lower, middle)
            await self.halve(middle, upper)
        elif not positions:
            raise failure
        else:
            await self._park(failure)

    async def check(self, upper: int) -> None:
        """Raise the error of a parked conversation if it may be the fault of the projection or of the server."""
        if not self._unclear or self._has_applied:
            return
        failure = self._unclear[0]
        if self.parked > 1 or (failure.sqlstate or "")[:2] in (*NEEDS_AN_EVENT, *SERVER_ERRORS):
            raise failure
        if await self._fold(upper, upper) is not None:
            raise failure

    async def _fold(self, lower: int, upper: int) -> psycopg.Error | UnprocessableEvent | None:
        """The error of the projection, which is undone; None if it succeeds."""
        await self._connection.execute(_BOUNDS, {"lower": str(lower), "upper": str(upper)})
        try:
            async with self._connection.transaction():
                await self._projection.fold(self._connection)
        except (psycopg.Error, UnprocessableEvent) as error:
            if not may_be_event_error(error, is_persistent=self._is_persistent):
                raise
            return error
        return None

    async def _park(self, failure: psycopg.Error | UnprocessableEvent) -> None:
        """Park the conversation of the one event that the batch shows."""
        if isinstance(failure, psycopg.Error) and (failure.sqlstate or "")[:2] not in DATA_ERRORS:
            self._unclear.append(failure)
        parameters = {
            "projection": self._projection.name,
            "stage": self._stage,
            "sqlstate": failure.sqlstate if isinstance(failure, psycopg.Error) else PYTHON,
            "error": printable(str(failure).strip(), _LONGEST_ERROR),
            "tries": self._tries,
        }
        self.parked += (await self._connection.execute(_PARK, parameters)).rowcount
