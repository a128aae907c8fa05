"""Finding the events that a projection fails on, and parking their conversations, so that the others go on.

An event that a projection fails on *parks* its conversation in that projection: neither the event nor what follows it
in the conversation is applied until a retry succeeds (:mod:`projections.parked`). The SQLSTATE tells three kinds of
errors apart:

- The server's or the connection's own state (a deadlock, a full disk, a lost connection) is not the event's fault. The
  batch is rolled back and tried again. An error of this kind that persists over a connection that works counts as one
  of the third kind.
- An error of the data (a value, a constraint, a limit such as the size of an index row; any exception of a projection
  in Python) parks.
- Any other error parks only if it can be isolated: the projection must succeed on something else, which shows that the
  projection and the server work. That is another event of the batch or, if the batch holds one event, an empty batch.
  An empty batch proves nothing if an event is needed to reach what is missing (a function, a privilege, memory, time):
  then the event is tried again until others have come. If everything fails, nothing is parked.

The failing event is found by bisecting the batch under savepoints, lower positions first: what precedes it in its
conversation is applied, and once the conversation is parked, the relation ``batch`` no longer shows what follows. So no
conversation holds up the others for longer than the search takes.
"""

from __future__ import annotations

import logging
from typing import Any

import psycopg

from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, printable
from projections.projection import Projection, Stage, UnprocessableEvent

DATA_ERRORS = ("21", "22", "23", "38", "39", "54", "P0")
"""Classes of SQLSTATE: cardinality, data, constraints, routines, program limits, PL/pgSQL."""
SERVER_ERRORS = ("08", "25", "28", "3D", "40", "53", "55", "57", "58", "ES", "F0")
"""Classes of SQLSTATE: connection, transaction state, login, database, rollback, resources, object state, operator,
system and configuration; and the errors of the event store's own functions."""
POSSIBLE_EVENT_ERRORS = ("53200", "53400", "57014")
"""Errors of those classes that an event can cause: out of memory, too large temporary files, statement timeout."""
NEEDS_AN_EVENT = ("42", "53", "57")
"""Classes of SQLSTATE for which success on an empty batch proves nothing."""
PYTHON_ERROR = "PYERR"
"""Stored in place of an SQLSTATE if a projection in Python raised the error."""

_BOUNDS = query("projections", "bounds")
_PARK = query("projections", "park")
_MAX_ERROR_CHARACTERS = 2000

_log = logging.getLogger(__name__)


def may_be_event_error(error: BaseException, *, is_persistent: bool = False) -> bool:
    """Return whether an event may have caused an error, so that it is worth isolating.

    Args:
        is_persistent: whether the projection has failed several times in a row.
    """
    while isinstance(error, EventStoreError) and error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, psycopg.Error):
        return isinstance(error, UnprocessableEvent)
    state = error.sqlstate
    return state is not None and (is_persistent or state[:2] not in SERVER_ERRORS or state in POSSIBLE_EVENT_ERRORS)


def loggable(error: Exception) -> str:
    """Return the text of an error for the log: only its kind if it may quote what conversations contain."""
    cause = error.__cause__ or error
    if isinstance(cause, psycopg.Error) and (cause.sqlstate or "")[:2] not in DATA_ERRORS:
        return str(error)
    if isinstance(cause, psycopg.Error):
        return f"{type(cause).__name__} (SQLSTATE {cause.sqlstate})"
    return str(error) if isinstance(cause, EventStoreError) else type(cause).__name__


class FailureIsolation:
    """The search for the events of the open batch that a projection fails on.

    Args:
        tries: stored as the number of failures of the conversations that are parked.
        is_persistent: whether the projection has failed several times in a row.
    """

    def __init__(
        self, connection: Connection, projection: Projection, stage: Stage, tries: int = 1, is_persistent: bool = False
    ) -> None:
        self._connection = connection
        self._projection = projection
        self._parked_as = {"projection": projection.name, "stage": stage, "tries": tries}
        self._is_persistent = is_persistent
        self._unclear: list[psycopg.Error] = []
        self._has_applied = False
        self._parked: list[dict[str, Any]] = []

    async def fold_or_park(self, lower: int, upper: int) -> int:
        """Apply the open batch between two positions, and park the conversations that the projection fails on.

        Return the number of parked conversations.

        Raises:
            psycopg.Error: an error that no conversation caused; the transaction must be rolled back.
        """
        # Deferred constraints must fail within the savepoint.
        await self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await self._halve(lower, upper)
        if self._unclear and not self._has_applied:
            # The projection or the server may have caused the error: nothing has succeeded yet.
            failure = self._unclear[0]
            proves_nothing = (failure.sqlstate or "")[:2] in (*NEEDS_AN_EVENT, *SERVER_ERRORS)
            if len(self._parked) > 1 or proves_nothing or await self._fold(upper, upper) is not None:
                raise failure
        return len(self._parked)

    def log_parked(self) -> None:
        """Log the conversations that are parked now; call it once the transaction has committed."""
        for fields in self._parked:
            _log.warning("projection %s: a conversation is parked", self._projection.name, extra=fields)

    async def _halve(self, lower: int, upper: int) -> None:
        """Apply the events between two positions; if that fails, each half separately."""
        failure = await self._fold(lower, upper)
        shown = await self._connection.execute("SELECT position FROM batch ORDER BY position")
        positions = [position for (position,) in await shown.fetchall()]
        if failure is None:
            self._has_applied = self._has_applied or bool(positions)
        elif not positions:
            raise failure
        elif len(positions) == 1:
            await self._park(failure)
        else:
            middle = positions[len(positions) // 2 - 1]
            await self._halve(lower, middle)
            await self._halve(middle, upper)

    async def _fold(self, lower: int, upper: int) -> psycopg.Error | UnprocessableEvent | None:
        """Apply the events between two positions. If that fails, undo it and return the error."""
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
        state = PYTHON_ERROR
        if isinstance(failure, psycopg.Error):
            state = failure.sqlstate or ""
            if state[:2] not in DATA_ERRORS:
                self._unclear.append(failure)
        error = printable(str(failure).strip(), _MAX_ERROR_CHARACTERS)
        parked = await self._connection.execute(_PARK, self._parked_as | {"sqlstate": state, "error": error})
        for tenant, conversation_id, event_id, event_type in await parked.fetchall():
            self._parked.append({
                "event": "conversation_parked",
                "projection": self._projection.name,
                "tenant": tenant,
                "conversation_id": str(conversation_id),
                "event_id": str(event_id),
                "event_type": event_type,
                "sqlstate": state,
            })  # fmt: skip
