"""Applying the log to read tables, a batch at a time, rows and checkpoint in one transaction.

A batch begins by locking the projection's checkpoints and takes its lower bound from them; it ends by moving them, in
the same transaction as the rows. So a worker that is killed at any instant has applied a batch wholly or not at all,
and two workers never apply one batch twice: the second waits for the first and then starts where that one ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psycopg import IsolationLevel, sql

from eventstore import EventStore
from eventstore.database.connection import PROJECTOR, Connection
from eventstore.database.queries import query
from eventstore.database.translate import translated
from projections.projection import SHARES, Projection

BATCH_SIZE = 10_000
"""Events in one transaction at most."""

_BATCH_VIEW = query("projections", "batch")
_REGISTER = query("projections", "register")
_END_BATCH = query("projections", "end_batch")
_RESET = query("projections", "reset")

Progress = Callable[[str, int], None]
"""Called with a projection's name and the position that it has applied."""


class Applier:
    """Applies batches over one connection, under the projector's role."""

    def __init__(self, connection: Connection, batch_size: int = BATCH_SIZE) -> None:
        self._connection = connection
        self._batch_size = batch_size

    @classmethod
    async def open(cls, store: EventStore, batch_size: int = BATCH_SIZE) -> Applier:
        """Connects. Close it when done."""
        connection = await store.connect(PROJECTOR)
        try:
            with translated():
                await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
                await connection.execute(_BATCH_VIEW)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, batch_size)

    async def close(self) -> None:
        """Closes the connection; a batch under way is rolled back."""
        await self._connection.close()

    async def register(self, projection: Projection) -> None:
        """Makes a new projection known, and refills one whose text has changed since its tables were filled."""
        parameters = {"projection": projection.name, "source": projection.source, "shares": SHARES}
        with translated():
            rows = await (await self._connection.execute(_REGISTER, parameters)).fetchall()
        if any(source != projection.source for (source,) in rows):
            await self.empty([projection])

    async def empty(self, projections: Sequence[Projection]) -> None:
        """Empties the tables of projections and sets their checkpoints to the beginning of the log."""
        with translated():
            async with self._connection.transaction():
                for projection in projections:
                    parameters = {"projection": projection.name, "source": projection.source}
                    await self._connection.execute(_RESET, parameters)
                    tables = sql.SQL(", ").join(map(sql.Identifier, projection.tables))
                    await self._connection.execute(sql.SQL("TRUNCATE {}").format(tables))

    async def apply(self, projection: Projection) -> int | None:
        """Applies the next batch.

        Returns:
            The position that is applied now; None where there was nothing to apply.
        """
        with translated():
            async with self._connection.transaction():
                cursor = await self._connection.execute(
                    "SELECT upper_position FROM begin_batch(%s, %s)", (projection.name, self._batch_size)
                )
                row = await cursor.fetchone()
                if row is None:
                    return None
                await self._connection.execute(projection.text)
                parameters = {"projection": projection.name, "upper": row[0]}
                await self._connection.execute(_END_BATCH, parameters)
        return int(row[0])

    async def catch_up(
        self, projections: Sequence[Projection], progress: Progress = lambda name, position: None
    ) -> None:
        """Applies batches until there are no more."""
        for projection in projections:
            while (position := await self.apply(projection)) is not None:
                progress(projection.name, position)
