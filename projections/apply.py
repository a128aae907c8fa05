"""Applying the log to read tables, a batch at a time, rows and checkpoints in one transaction.

A batch begins by locking the checkpoints of its shares and takes its lower bound from them; it ends by moving them, in
the same transaction as the rows. So a worker that is killed at any instant has applied a batch wholly or not at all,
and two workers never apply one batch twice: the second waits for the first and then starts where that one ended. That
each share has a worker of its own (:mod:`projections.shares`) only spreads the work; nothing here rests on it.

The text that is applied is the one that the tables are made by. Another version of this package may have rebuilt them
by another; the server tells (SQLSTATE ES006), once the checkpoints are locked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Literal

from psycopg import IsolationLevel

from eventstore import EventStore
from eventstore.database.connection import PROJECTOR, Connection
from eventstore.database.queries import query
from eventstore.database.translate import translated
from projections.parking import fold_carefully, may_be_of_an_event
from projections.projection import SHARES, Projection, StoredProjection

BATCH_SIZE = 10_000
"""Events in one transaction at most."""

Stage = Literal["live", "next", "previous"]
"""Of read tables: those that are read, those that a rebuild fills, those that it has replaced."""

ALL_SHARES = tuple(range(SHARES))
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
        events: of the log that it went over, those of other shares included.
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
        shares: Sequence[int] = ALL_SHARES,
        size: int | None = None,
        until: int = _NO_BOUND,
        is_persistent: bool = False,
    ) -> Applied | None:
        """Applies the next batch. Events that the projection fails on park their conversations.

        Args:
            shares: whose events.
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
            batch = await self._batch(projection, stage, shares, size or self._batch_size, until)
        except Exception as error:
            if self.connection.closed or not may_be_of_an_event(error, is_persistent=is_persistent):
                raise
            fold = partial(fold_carefully, is_persistent=is_persistent)
            batch = await self._batch(projection, stage, shares, size or self._batch_size, until, fold)
        return batch and Applied(*batch, monotonic() - began)

    async def _batch(
        self,
        projection: Projection,
        stage: Stage,
        shares: Sequence[int],
        size: int,
        until: int,
        fold: Callable[[Connection, Projection, str, int, int], Awaitable[int]] | None = None,
    ) -> tuple[int, int] | None:
        connection = self.connection
        parameters = {
            "projection": projection.name,
            "stage": stage,
            "source": projection.source,
            "shares": list(shares),
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
        shares: Sequence[int] = ALL_SHARES,
        until: int = _NO_BOUND,
    ) -> None:
        """Applies batches until there are no more."""
        for projection in projections:
            while (applied := await self.apply(projection, stage=stage, shares=shares, until=until)) is not None:
                progress(projection.name, applied.position)
