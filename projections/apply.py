"""Applying events to read tables in batches, rows and checkpoint in one transaction.

At rest and in a thin stream, what a batch costs is not its rows but the statements around them: beginning, planning,
committing. So the session keeps each built-in text as a function, and a procedure applies the next small batch of each
projection. It locks the checkpoints and takes its bounds from them as every batch does, rows and checkpoints in one
transaction (:mod:`projections.apply`). An error undoes the batch of the projection that failed; then each projection is
applied by itself, where errors are dealt with.

The call is handed to libpq (``psycopg.pq``): a cursor would add a tenth to the time until a row is there.

A batch begins by locking the checkpoints of its partitions and takes its lower bound from them; it ends by moving them,
in the same transaction as the rows. So a worker that is killed at any instant has applied a batch wholly or not at all,
and two workers never apply one batch twice: the second waits for the first and then starts where that one ended. That
each partition has a worker of its own (:mod:`projections.worker`) only spreads the work; nothing here rests on it.

The text that is applied is the one that the tables are made by. Another version of this package may have rebuilt them
by another; the server tells (SQLSTATE ES006), once the checkpoints are locked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Literal, NamedTuple

from psycopg import IsolationLevel, generators, sql
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from eventstore import EventStore
from eventstore.database.connection import PROJECTOR, Connection, statement_name
from eventstore.database.queries import query
from eventstore.errors import translated
from projections.parking import fold_or_park, may_be_event_error
from projections.projection import PARTITIONS, Projection, StoredProjection

# Small batches in one round trip for all projections of a connection, by plans that are kept

SMALL_BATCH_EVENTS = 100
"""Of the log that a small batch goes over at most."""

_FOLD = query("projections", "small_batch_fold")
_MAKE = query("projections", "small_batch_procedure")
_APPLY = sql.SQL(query("projections", "apply_small_batch"))
"""With its values in the text: they hardly ever change, and need not travel."""


class Step(NamedTuple):
    """How far a projection is after a small batch, and the events of the log that the batch went over."""

    position: int
    events: int


class SmallBatches:
    """The small batches of one connection.

    Attributes:
        size: events of the log that one goes over at most.
    """

    def __init__(self, connection: Connection, size: int = SMALL_BATCH_EVENTS) -> None:
        self._connection = connection
        self.size = size
        self._is_made = False
        self._kept: set[str] = set()
        self._calls: dict[tuple[tuple[Projection, ...], tuple[int, ...]], bytes] = {}
        """The names of the calls that are prepared, for which projections and partitions."""

    async def apply(self, projections: Sequence[Projection], partitions: Sequence[int]) -> list[Step]:
        """Applies the next small batch of each of these projections to its live tables.

        Args:
            projections: built-in ones, by the texts that this version has.
            partitions: whose events.

        Returns:
            A step for each projection.

        Raises:
            EventStoreError: one of them failed, and with it those after it; what was before it is applied.
        """
        with translated():
            await self._keep(projections)
            call = await self._prepared(projections, partitions)
            result = await self._run(partial(self._connection.pgconn.send_query_prepared, call, None))
            return list(map(Step, _numbers(result.get_value(0, 0)), _numbers(result.get_value(0, 1))))

    async def _prepared(self, projections: Sequence[Projection], partitions: Sequence[int]) -> bytes:
        which = (tuple(projections), tuple(partitions))
        if which not in self._calls:
            text = _APPLY.format(
                projections=sql.Literal([projection.name for projection in projections]),
                sources=sql.Literal([projection.source for projection in projections]),
                partitions=sql.Literal(list(partitions)),
                size=sql.Literal(self.size),
            ).as_bytes(self._connection)
            name = statement_name(text, (), b"eventstore_quick")
            await self._run(partial(self._connection.pgconn.send_prepare, name, text))
            self._calls[which] = name
        return self._calls[which]

    async def _run(self, send: Callable[[], None]) -> PGresult:
        async with self._connection.lock:
            send()
            results: list[PGresult] = await self._connection.wait(generators.execute(self._connection.pgconn))
        result = results[-1]
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, self._connection.info.encoding)
        return result

    async def _keep(self, projections: Sequence[Projection]) -> None:
        if not self._is_made:
            await self._connection.execute(_MAKE.encode())
            self._is_made = True
        for projection in projections:
            if projection.name not in self._kept:
                text = _FOLD.format(
                    function=sql.Identifier(f"fold_{projection.name}").as_string(), text=projection.text
                )
                await self._connection.execute(text.encode())
                self._kept.add(projection.name)


def _numbers(array: bytes | None) -> list[int]:
    """Of an array as the server writes it."""
    return [int(number) for number in (array or b"{}").strip(b"{}").split(b",") if number]


# Applying the log to read tables, a batch at a time, rows and checkpoints in one transaction

BATCH_SIZE = 10_000
"""Events in one transaction at most."""

Stage = Literal["live", "next", "previous"]
"""Of read tables: those that are read, those that a rebuild fills, those that it has replaced."""

ALL_PARTITIONS = tuple(range(PARTITIONS))
_NO_BOUND = 2**63 - 1

_BATCH_VIEW = query("projections", "batch")
_REGISTER = query("projections", "register")
_BEGIN_BATCH = query("projections", "begin_batch")
_END_BATCH = query("projections", "end_batch")
_STAGE_PATH = query("projections", "stage_path")

Progress = Callable[[str, int], None]
"""Called with a projection's name and the position that it has applied."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A batch that was applied.

    Attributes:
        position: up to which the log is applied now.
        events: of the log that it went over, those of other partitions included.
        seconds: it took.
    """

    position: int
    events: int
    seconds: float


class Applier:
    """Applies batches over one connection, under the projector's role."""

    def __init__(self, connection: Connection, batch_size: int = BATCH_SIZE) -> None:
        self.connection = connection
        self._batch_size = batch_size

    @classmethod
    async def open(cls, store: EventStore, batch_size: int = BATCH_SIZE, *, view: str = _BATCH_VIEW) -> Applier:
        """Connects. Close it when done.

        Args:
            view: makes the relation ``batch``.
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
        """Closes the connection; a batch under way is rolled back."""
        await self.connection.close()

    async def register(self, projection: Projection, stage: Stage = "live") -> Projection | None:
        """Makes a projection known, if it is new.

        Returns:
            What its tables are made by: the projection as given, or another text that is stored until they are
            rebuilt; None where that is not known.
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
        if not rows:  # somebody else makes it known at this moment
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
        """Applies the next batch. Events that the projection fails on park their conversations.

        Args:
            partitions: whose events.
            size: events of the log to go over, at most.
            until: the position to stop at.
            is_persistent: the projection has failed several times in a row, see :mod:`projections.parking`.

        Returns:
            What was applied; None where there was nothing to apply.

        Raises:
            ProjectionChanged: the tables are made by another text now.
        """
        began = monotonic()
        try:
            batch = await self._batch(projection, stage, partitions, size or self._batch_size, until)
        except Exception as error:
            if self.connection.closed or not may_be_event_error(error, is_persistent=is_persistent):
                raise
            fold = partial(fold_or_park, is_persistent=is_persistent)
            batch = await self._batch(projection, stage, partitions, size or self._batch_size, until, fold)
        return batch and Applied(*batch, monotonic() - began)

    async def _batch(
        self,
        projection: Projection,
        stage: Stage,
        partitions: Sequence[int],
        size: int,
        until: int,
        fold: Callable[[Connection, Projection, str, int, int], Awaitable[int]] | None = None,
    ) -> tuple[int, int] | None:
        connection = self.connection
        parameters = {
            "projection": projection.name,
            "stage": stage,
            "source": projection.source,
            "partitions": list(partitions),
            "size": size,
            "until": until,
        }
        with translated():
            async with connection.transaction():
                row = await (await connection.execute(_BEGIN_BATCH, parameters)).fetchone()
                if row is None:
                    return None
                lower, upper, events = row
                if stage != "live":
                    await connection.execute(_STAGE_PATH, {"stage": stage})
                if fold is not None:
                    await fold(connection, projection, stage, lower, upper)
                else:
                    await projection.fold(connection)
                await connection.execute(_END_BATCH, parameters | {"upper": upper})
        return upper, events

    async def catch_up(
        self,
        projections: Sequence[Projection],
        progress: Progress = lambda name, position: None,
        *,
        stage: Stage = "live",
        partitions: Sequence[int] = ALL_PARTITIONS,
        until: int = _NO_BOUND,
    ) -> None:
        """Applies batches until there are no more."""
        for projection in projections:
            while (
                applied := await self.apply(projection, stage=stage, partitions=partitions, until=until)
            ) is not None:
                progress(projection.name, applied.position)
