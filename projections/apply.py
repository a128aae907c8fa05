"""Applying the log to read tables in batches, rows and checkpoints in one transaction.

Opening a batch (``begin_batch``) fixes the range of positions that the relation ``batch`` shows, and locks the
checkpoints of the partitions that have events in it. The relation shows of each of these partitions what is above its
checkpoint. Closing the batch (``end_batch``) moves the checkpoints, in the transaction that writes the rows. So a
worker that is killed at any instant has applied a batch completely or not at all, and two workers never apply an event
twice: the second leaves the partitions that are locked to the first, or waits for it and then starts where that one
ended. Checkpoints of partitions without events in the range are moved without having been locked before. That each
partition has a worker of its own (:mod:`projections.worker`) only spreads the work; correctness does not depend on it.

A projection is applied by the definition that filled its tables. Another version of this package may have rebuilt them
by another definition; ``begin_batch`` refuses that (SQLSTATE ES006) once it holds the locks.

If a batch fails on single events, their conversations are parked (:mod:`projections.failure_isolation`).

**The path of a worker's batch** leads through these files:

1. ``worker.py``: ``Runner.run`` waits for events, and ``Runner._apply_round`` calls :meth:`Applier.apply_small_batches`
   or, for what is left, :meth:`Applier.apply_batch` here.
2. Both open the batch (``db/schema/projections/begin_batch.sql``), fold it into the read tables by the projection's own
   file, such as ``messages.sql``, and close it (``end_batch.sql``), in one transaction. The statements are in
   ``queries/apply.sql``.
3. If the fold fails, ``failure_isolation.py`` finds the events that it fails on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from time import time_ns
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import IsolationLevel, sql

from eventstore import EventStore
from eventstore.database.connection import PROJECTOR, Connection
from eventstore.database.queries import query
from eventstore.errors import (
    ConnectionLost,
    EventStoreError,
    NotCaughtUp,
    PermissionDenied,
    ProjectionChanged,
    ProjectionPaused,
    SchemaError,
    ServerUnreachable,
    translated,
)
from eventstore.tracing import MAX_LINKS, record_batch, tracing
from projections.custom_projections import create_missing_tables
from projections.failure_isolation import FailureIsolation, may_be_event_error
from projections.projection import ALL_PARTITIONS, PROJECTIONS, Projection, Stage

BATCH_SIZE = 10_000
"""Events in one transaction at most."""
SMALL_BATCH_SIZE = 100
"""Events of the log that a small batch covers at most."""

_NO_BOUND = 2**63 - 1
_BATCH_VIEW = query("projections", "batch")
_REGISTER = query("projections", "register")
_BEGIN_BATCH = query("projections", "begin_batch")
_END_BATCH = query("projections", "end_batch")
_STAGE_PATH = query("projections", "stage_path")
_SMALL_BATCHES = query("projections", "small_batches")
_SMALL_BATCHES_PROCEDURE = query("projections", "small_batches_procedure")
_FOLD_FUNCTION = query("projections", "fold_function")
_TRACED_EVENTS = query("projections", "traced_events")


class Applied(NamedTuple):
    """The outcome of a batch.

    Attributes:
        position: the position up to which the log is applied now.
        events: the number of log events that the batch covered, those of other partitions included.
        lower: the position up to which it was applied before.
    """

    position: int
    events: int
    lower: int


class Applier:
    """A connection under the projector's role that applies batches."""

    def __init__(self, connection: Connection, batch_size: int = BATCH_SIZE) -> None:
        self.connection = connection
        self._batch_size = batch_size
        self._fold_functions: set[str] = set()

    @classmethod
    async def open(cls, store: EventStore, batch_size: int = BATCH_SIZE, *, view: str = _BATCH_VIEW) -> Self:
        """Connect. Close it when done, or use it with ``async with``.

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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def register(self, projection: Projection, stage: Stage = "live") -> Projection | None:
        """Store the definition that a projection's tables are made by, unless one is stored already.

        Returns:
            The definition that the tables are made by: the given one, or another one that is stored until a rebuild;
            None if that is not known.
        """
        parameters = {
            "projection": projection.name,
            "stage": stage,
            "definition_hash": projection.definition_hash,
            "text": projection.text,
            "tables": list(projection.tables),
        }
        with translated():
            rows = await (await self.connection.execute(_REGISTER, parameters)).fetchall()
        if not rows:  # another session is storing it at this moment
            return await self.register(projection, stage)
        definition_hash, text, tables = rows[0]
        if definition_hash == projection.definition_hash:
            return projection
        if text is None:
            return None
        return Projection(projection.name, tuple(tables), text, stored_hash=definition_hash)

    async def apply_batch(
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
            partitions: the partitions of the conversations whose events are applied.
            size: events of the log to cover, at most.
            until: the position to stop at.
            is_persistent: whether the projection has failed several times in a row.

        Returns:
            The outcome; None if there is nothing to apply.

        Raises:
            ProjectionChanged: the tables are made by another definition now.
        """
        batch = {
            "projection": projection.name,
            "stage": stage,
            "definition_hash": projection.definition_hash,
            "partitions": list(partitions),
            "size": size or self._batch_size,
            "until": until,
        }
        began = time_ns()
        try:
            applied = await self._apply(batch, lambda _lower, _upper: projection.fold(self.connection))
        except Exception as error:
            if self.connection.closed or not may_be_event_error(error, is_persistent=is_persistent):
                raise
            isolation = FailureIsolation(self.connection, projection, stage, is_persistent=is_persistent)
            applied = await self._apply(batch, isolation.fold_or_park)
            isolation.log_parked()
        if applied is not None and stage == "live":
            await self._trace([projection], partitions, [applied], began)
        return applied

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
        return Applied(upper, events, lower)

    async def apply_all(
        self,
        projection: Projection,
        *,
        stage: Stage = "live",
        partitions: Sequence[int] = ALL_PARTITIONS,
        until: int = _NO_BOUND,
    ) -> None:
        """Apply batches until nothing is left to apply."""
        while await self.apply_batch(projection, stage=stage, partitions=partitions, until=until) is not None:
            pass

    async def apply_up_to(self, projection: Projection, stage: Stage, positions: Mapping[int, int]) -> None:
        """Apply batches until each partition has reached its position, or nothing is left to apply."""
        for position in set(positions.values()):
            partitions = [partition for partition, wanted in positions.items() if wanted == position]
            await self.apply_all(projection, stage=stage, partitions=partitions, until=position)

    async def apply_small_batches(
        self, projections: Sequence[Projection], partitions: Sequence[int], size: int = SMALL_BATCH_SIZE
    ) -> list[Applied]:
        """Apply the next small batch of each of several projections to its live tables, in one round trip.

        A small batch costs less for its rows than for the statements around them: to begin, to plan, to commit. So a
        procedure of the session runs them all, and each projection's text is a function whose plans the session keeps.

        Args:
            projections: built-in ones that are registered, and whose tables this version's definitions made.
            size: events of the log that each batch covers at most.

        Raises:
            EventStoreError: a projection failed. Its batch and those of the projections after it are not applied.
        """
        parameters = {
            "projections": [projection.name for projection in projections],
            "definition_hashes": [projection.definition_hash for projection in projections],
            "partitions": list(partitions),
            "size": size,
        }
        began = time_ns()
        with translated():
            if not self._fold_functions:
                await self.connection.execute(_SMALL_BATCHES_PROCEDURE)
            for projection in projections:
                if projection.name not in self._fold_functions:
                    function = sql.Identifier(f"fold_{projection.name}").as_string()
                    text = _FOLD_FUNCTION.format(function=function, text=projection.text)
                    await self.connection.execute(text.encode())
                    self._fold_functions.add(projection.name)
            [columns] = await (await self.connection.execute(_SMALL_BATCHES, parameters, prepare=True)).fetchall()
        outcomes = [Applied(*outcome) for outcome in zip(*columns, strict=True)]
        await self._trace(projections, partitions, outcomes, began)
        return outcomes

    async def _trace(
        self, projections: Sequence[Projection], partitions: Sequence[int], outcomes: Sequence[Applied], began: int
    ) -> None:
        """Record a span of the batches that were applied together since a time, if appends in them were traced."""
        api = tracing()
        applied = {each.name: outcome for each, outcome in zip(projections, outcomes, strict=True) if outcome.events}
        if api is None or not applied:
            return
        parameters = {
            "lower": min(each.lower for each in applied.values()),
            "upper": max(each.position for each in applied.values()),
            "partitions": list(partitions),
            "links": MAX_LINKS,
        }
        with suppress(psycopg.Error):  # the batches are applied; if the connection is lost, the next one will say so
            sources = await (await self.connection.execute(_TRACED_EVENTS, parameters)).fetchall()
            record_batch(api, list(applied), sources, began, time_ns())


# Catching up once, without a worker


async def catch_up(store: EventStore, projections: Sequence[Projection] = PROJECTIONS) -> None:
    """Apply the log, as it is now, to the read tables, whether or not a worker runs.

    Raises:
        NotCaughtUp: a projection fails as a whole, not on single conversations. The others have applied the log.
    """
    await create_missing_tables(store, projections)
    failures = []
    async with await Applier.open(store) as applier:
        for projection in projections:
            try:
                await _register_and_apply_all(applier, projection)
            except (ConnectionLost, ServerUnreachable, SchemaError, PermissionDenied):
                raise
            except EventStoreError as error:
                failures.append((projection, error))
    if failures:
        # The text of the error is about the projection's batch; what callers have appended is stored.
        projection, cause = failures[0]
        reason = str(cause.__cause__ or cause).strip().partition("\n")[0]
        if isinstance(cause, ProjectionPaused):
            reason = str(cause)
        raise NotCaughtUp(
            f"the read tables of the projection {projection.name} are behind the log: {reason}. "
            "What was appended is stored; a worker, or the same call, applies it once the cause is gone"
        ) from cause


async def _register_and_apply_all(applier: Applier, projection: Projection) -> None:
    while (made_by := await applier.register(projection)) is not None:  # otherwise only a rebuild helps
        with suppress(ProjectionChanged):
            await applier.apply_all(made_by)
            break
