"""Applying the log to read tables in batches, rows and checkpoints in one transaction; parking what cannot be applied.

Opening a batch (``begin_batch``) locks the checkpoints of its partitions, takes its lower bound from them, and fixes
the positions that the relation ``batch`` shows. Closing it (``end_batch``) moves those checkpoints, in the transaction
that writes the rows. So a worker that is killed at any instant has applied a batch completely or not at all, and two
workers never apply one batch twice: the second waits for the first and then starts where that one ended. That each
partition has a worker of its own (:mod:`projections.worker`) only spreads the work; correctness does not depend on it.

A projection is applied by the text that its tables were made by. Another version of this package may have rebuilt them
by another text; ``begin_batch`` refuses that (SQLSTATE ES006) once it holds the locks.

An event that a projection fails on *parks* its conversation in that projection: neither the event nor what follows it
in the conversation is applied until a retry succeeds. The SQLSTATE tells three kinds of errors apart:

- The server's or the connection's own state (a deadlock, a full disk, a lost connection) is not the event's fault. The
  batch is rolled back and tried again. An error of this kind that persists over a connection that works counts as one
  of the third kind.
- An error of the data (a value, a constraint, a limit such as the size of an index row; any exception of a projection
  in Python) parks.
- Any other error parks only if it can be isolated: the projection must succeed on something else, which shows that the
  projection and the server work. That is another event of the batch or, if the batch holds one event, an empty batch.
  An empty batch proves nothing if an event is needed to reach what is missing (a function, a privilege, memory, time):
  then the event is tried again until others have come. If everything fails, nothing is parked.

The failing event is found by halving the batch under savepoints, from the left: what precedes it in its conversation is
applied, and once the conversation is parked, the relation ``batch`` no longer shows what follows. So no conversation
holds up the others for longer than the search takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import psycopg
from psycopg import IsolationLevel, sql

from eventstore import EventStore
from eventstore.database.connection import PROJECTOR, Connection
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, printable, translated
from projections.projection import PARTITIONS, PROJECTIONS, Projection, StoredProjection, UnprocessableEvent

BATCH_SIZE = 10_000
"""Events in one transaction at most."""
SMALL_BATCH_SIZE = 100
"""Events of the log that a small batch covers at most."""
ALL_PARTITIONS = tuple(range(PARTITIONS))

Stage = Literal["live", "next", "previous"]
"""Read tables in use, those that a rebuild fills, and those that the last rebuild has replaced."""

_NO_BOUND = 2**63 - 1
_BATCH_VIEW = query("projections", "batch")
_REGISTER = query("projections", "register")
_BEGIN_BATCH = query("projections", "begin_batch")
_END_BATCH = query("projections", "end_batch")
_STAGE_PATH = query("projections", "stage_path")
_SMALL_BATCHES = query("projections", "small_batches")
_SMALL_BATCHES_PROCEDURE = query("projections", "small_batches_procedure")
_FOLD_FUNCTION = query("projections", "fold_function")


class Applied(NamedTuple):
    """The outcome of a batch.

    Attributes:
        position: up to which the log is applied now.
        events: of the log that the batch covered, those of other partitions included.
    """

    position: int
    events: int


class Applier:
    """A connection under the projector's role that applies batches."""

    def __init__(self, connection: Connection, batch_size: int = BATCH_SIZE) -> None:
        self.connection = connection
        self._batch_size = batch_size
        self._fold_functions: set[str] = set()

    @classmethod
    async def open(cls, store: EventStore, batch_size: int = BATCH_SIZE, *, view: str = _BATCH_VIEW) -> Applier:
        """Connect. Close it when done.

        Args:
            view: the statement that makes the relation ``batch``.
        """
        connection = await store.connect(PROJECTOR)
        try:
            with translated():
                await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
                await connection.execute("SET synchronous_commit = off")  # rows and checkpoints are lost together
                await connection.execute(view.encode())
        except BaseException:
            await connection.close()
            raise
        return cls(connection, batch_size)

    async def close(self) -> None:
        """Close the connection; an open batch is rolled back."""
        await self.connection.close()

    async def register(self, projection: Projection, stage: Stage = "live") -> Projection | None:
        """Store what a projection's tables are made by, unless it is stored already.

        Returns:
            What the tables are made by: the given projection, or another text that is stored until they are rebuilt;
            None if that is not known.
        """
        parameters = {
            "projection": projection.name,
            "stage": stage,
            "source": projection.source,
            "text": projection.text,
            "tables": list(projection.tables),
        }
        with translated():
            rows = await (await self.connection.execute(_REGISTER, parameters)).fetchall()
        if not rows:  # another session is storing it at this moment
            return await self.register(projection, stage)
        source, text, tables = rows[0]
        if source == projection.source:
            return projection
        if text is None:
            return None
        return StoredProjection(projection.name, tuple(tables), text, stored_source=source)

    async def apply(
        self,
        projection: Projection,
        *,
        stage: Stage = "live",
        partitions: Sequence[int] = ALL_PARTITIONS,
        size: int | None = None,
        until: int = _NO_BOUND,
        is_persistent: bool = False,
    ) -> Applied | None:
        """Apply the next batch of a projection. Events that the projection fails on park their conversations.

        Args:
            partitions: of the conversations whose events are applied.
            size: events of the log to cover, at most.
            until: the position to stop at.
            is_persistent: whether the projection has failed several times in a row.

        Returns:
            The outcome; None if there is nothing to apply.

        Raises:
            ProjectionChanged: the tables are made by another text now.
        """
        batch = {
            "projection": projection.name,
            "stage": stage,
            "source": projection.source,
            "partitions": list(partitions),
            "size": size or self._batch_size,
            "until": until,
        }
        try:
            return await self._apply(batch, lambda _lower, _upper: projection.fold(self.connection))
        except Exception as error:
            if self.connection.closed or not may_be_event_error(error, is_persistent=is_persistent):
                raise
            isolation = _Isolation(self.connection, projection, stage, is_persistent=is_persistent)
            return await self._apply(batch, isolation.fold_or_park)

    async def _apply(self, batch: dict[str, Any], fold: Callable[[int, int], Awaitable[object]]) -> Applied | None:
        connection = self.connection
        with translated():
            async with connection.transaction():
                row = await (await connection.execute(_BEGIN_BATCH, batch)).fetchone()
                if row is None:
                    return None
                lower, upper, events = row
                if batch["stage"] != "live":
                    await connection.execute(_STAGE_PATH, {"stage": batch["stage"]})
                await fold(lower, upper)
                await connection.execute(_END_BATCH, {"upper": upper})
        return Applied(upper, events)

    async def apply_small_batches(
        self, projections: Sequence[Projection], partitions: Sequence[int], size: int = SMALL_BATCH_SIZE
    ) -> list[Applied]:
        """Apply the next small batch of each of several projections to its live tables, in one round trip.

        A small batch costs less for its rows than for the statements around them: to begin, to plan, to commit. So a
        procedure of the session runs them all, and each projection's text is a function whose plans the session keeps.

        Args:
            projections: built-in ones, whose tables are made by the texts of this version.
            size: events of the log that each batch covers at most.

        Returns:
            The outcome for each projection.

        Raises:
            EventStoreError: a projection failed. Its batch and those of the projections after it are not applied.
        """
        parameters = {
            "projections": [projection.name for projection in projections],
            "sources": [projection.source for projection in projections],
            "partitions": list(partitions),
            "size": size,
        }
        with translated():
            await self._prepare_small_batches(projections)
            row = await (await self.connection.execute(_SMALL_BATCHES, parameters, prepare=True)).fetchone()
        assert row is not None
        return [Applied(*outcome) for outcome in zip(*row, strict=True)]

    async def _prepare_small_batches(self, projections: Sequence[Projection]) -> None:
        """Create the procedure, and the function of each projection, in the session."""
        if not self._fold_functions:
            await self.connection.execute(_SMALL_BATCHES_PROCEDURE)
        for projection in projections:
            if projection.name not in self._fold_functions:
                function = sql.Identifier(f"fold_{projection.name}").as_string()
                text = _FOLD_FUNCTION.format(function=function, text=projection.text)
                await self.connection.execute(text.encode())
                self._fold_functions.add(projection.name)

    async def apply_all(
        self,
        projection: Projection,
        *,
        stage: Stage = "live",
        partitions: Sequence[int] = ALL_PARTITIONS,
        until: int = _NO_BOUND,
    ) -> None:
        """Apply batches until nothing is left to apply."""
        while await self.apply(projection, stage=stage, partitions=partitions, until=until) is not None:
            pass

    async def apply_up_to(self, projection: Projection, stage: Stage, positions: Mapping[int, int]) -> None:
        """Apply batches until each partition has reached its position, or nothing is left to apply."""
        for position in set(positions.values()):
            partitions = [partition for partition, wanted in positions.items() if wanted == position]
            await self.apply_all(projection, stage=stage, partitions=partitions, until=position)


# Isolating the events that a projection fails on, and parking their conversations

DATA_ERRORS = ("21", "22", "23", "38", "39", "54", "P0")
"""Classes of SQLSTATE: cardinality, data, constraints, routines, program limits, PL/pgSQL."""
SERVER_ERRORS = ("08", "25", "28", "3D", "40", "53", "55", "57", "58", "ES", "F0")
"""Classes of SQLSTATE: connection, transaction state, login, database, rollback, resources, object state, operator,
system and configuration; and the errors of the event store's own functions."""
POSSIBLE_EVENT_ERRORS = ("53200", "53400", "57014")
"""Errors of those classes that an event can cause: out of memory, too large temporary files, statement timeout."""
NEEDS_AN_EVENT = ("42", "53", "57")
"""Classes of SQLSTATE for which success on an empty batch proves nothing."""
PERSISTENT_FAILURES = 3
"""Failures of one projection in a row, with growing pauses, from which on the server's state does not explain them."""
PYTHON = "PYERR"
"""Stored in place of an SQLSTATE if a projection in Python raised the error."""

_BOUNDS = query("projections", "bounds")
_PARK = query("projections", "park")
_LONGEST_ERROR = 2000


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


class _Isolation:
    """The search for the events of the open batch that fail by themselves.

    Args:
        tries: stored as the number of failures of the conversations that are parked.
        is_persistent: whether the projection has failed several times in a row.
    """

    def __init__(
        self,
        connection: Connection,
        projection: Projection,
        stage: Stage,
        *,
        tries: int = 1,
        is_persistent: bool = False,
    ) -> None:
        self._connection = connection
        self._projection = projection
        self._stage = stage
        self._tries = tries
        self._is_persistent = is_persistent
        self._unclear: list[psycopg.Error] = []
        self._has_applied = False
        self._parked = 0

    async def fold_or_park(self, lower: int, upper: int) -> int:
        """Apply the open batch, and park the conversations that the projection fails on.

        Args:
            lower, upper: the positions between which it shows events, the first excluded.

        Returns:
            The number of parked conversations.

        Raises:
            psycopg.Error: an error that no conversation caused; the transaction must be rolled back.
        """
        # Deferred constraints must fail within the savepoint.
        await self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        await self._halve(lower, upper)
        await self._check(upper)
        return self._parked

    async def _halve(self, lower: int, upper: int) -> None:
        """Apply the events between two positions; if that fails, each half separately."""
        failure = await self._fold(lower, upper)
        shown = await self._connection.execute("SELECT position FROM batch ORDER BY position")
        positions = [position for (position,) in await shown.fetchall()]
        if failure is None:
            self._has_applied = self._has_applied or bool(positions)
        elif len(positions) > 1:
            middle = positions[len(positions) // 2 - 1]
            await self._halve(lower, middle)
            await self._halve(middle, upper)
        elif not positions:
            raise failure
        else:
            await self._park(failure)

    async def _check(self, upper: int) -> None:
        """Raise the error of a parked conversation if the projection or the server may have caused it."""
        if not self._unclear or self._has_applied:
            return
        failure = self._unclear[0]
        if self._parked > 1 or (failure.sqlstate or "")[:2] in (*NEEDS_AN_EVENT, *SERVER_ERRORS):
            raise failure
        if await self._fold(upper, upper) is not None:
            raise failure

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
        if isinstance(failure, psycopg.Error) and (failure.sqlstate or "")[:2] not in DATA_ERRORS:
            self._unclear.append(failure)
        parameters = {
            "projection": self._projection.name,
            "stage": self._stage,
            "sqlstate": failure.sqlstate if isinstance(failure, psycopg.Error) else PYTHON,
            "error": printable(str(failure).strip(), _LONGEST_ERROR),
            "tries": self._tries,
        }
        self._parked += (await self._connection.execute(_PARK, parameters)).rowcount


# Listing and retrying parked conversations

_PARKED = query("projections", "parked")
_BATCH_OF_ONE_VIEW = query("projections", "batch_of_one")
_UNPARK = query("projections", "unpark")


@dataclass(frozen=True, slots=True)
class Parked:
    """A conversation that a projection does not apply further.

    Attributes:
        position, version, event_id, event_type: of the event that failed.
        sqlstate: of its error; ``PYERR`` if a projection in Python raised it.
        tries: how often the event has failed.
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


@dataclass(frozen=True, slots=True)
class Retried:
    """The outcome of a retry.

    Attributes:
        applied: conversations that the projection has caught up with.
        parked: conversations that failed again.
    """

    applied: int
    parked: int


async def parked(
    store: EventStore, projections: Sequence[Projection] = PROJECTIONS, *, tenant: str | None = None
) -> list[Parked]:
    """Return the conversations that are parked in the live tables, the oldest first.

    Args:
        tenant: only those of this tenant.
    """
    names = [projection.name for projection in projections]
    rows = await store.connections.projector.fetch(_PARKED, {"projections": names, "tenant": tenant})
    return [Parked(*row) for row in rows]


async def retry(
    store: EventStore, projections: Sequence[Projection] = PROJECTIONS, *, tenant: str | None = None
) -> Retried:
    """Apply the events of parked conversations, in order, up to where the projection has applied their partitions.

    Each conversation has a transaction of its own, during which no other session applies its partition.
    """
    applied = failed = 0
    applier = await Applier.open(store, view=_BATCH_OF_ONE_VIEW)
    try:
        for projection in projections:
            conversations = await parked(store, [projection], tenant=tenant)
            made_by = await applier.register(projection) if conversations else None
            for conversation in conversations:
                if made_by is not None and await _retry(applier.connection, made_by, conversation):
                    applied += 1
                else:
                    failed += 1
    finally:
        await applier.close()
    return Retried(applied, failed)


async def _retry(connection: Connection, projection: Projection, conversation: Parked) -> bool:
    """Return whether a parked conversation could be applied; if not, it is parked still, or again."""
    parameters = {
        "projection": projection.name,
        "tenant_id": conversation.tenant_id,
        "conversation_id": conversation.conversation_id,
    }
    try:
        with translated():
            async with connection.transaction():
                row = await (await connection.execute(_UNPARK, parameters)).fetchone()
                if row is None:  # another session has retried it
                    return True
                lower, upper, tries, *_ = row
                isolation = _Isolation(connection, projection, "live", tries=tries + 1)
                return await isolation.fold_or_park(lower, upper) == 0
    except EventStoreError as error:
        if not may_be_event_error(error):
            raise
        return False  # rolled back: it is parked as before
