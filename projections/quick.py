"""Small batches in one round trip for all projections of a connection, by plans that are kept.

At rest and in a thin stream, what a batch costs is not its rows but the statements around them: beginning, planning,
committing. So the session keeps each built-in text as a function, and a procedure applies the next small batch of each
projection. It locks the checkpoints and takes its bounds from them as every batch does, rows and checkpoints in one
transaction (:mod:`projections.apply`). An error undoes the batch of the projection that failed; then each projection is
applied by itself, where errors are dealt with.

The call is handed to libpq (``psycopg.pq``): a cursor would add a tenth to the time until a row is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from psycopg import generators, sql
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.database.statements import statement_name
from eventstore.database.translate import translated
from projections.projection import Projection

QUICK_EVENTS = 100
"""Of the log that a small batch goes over at most."""

_FOLD = query("projections", "quick_fold")
_MAKE = query("projections", "quick_apply")
_APPLY = sql.SQL(query("projections", "apply_quickly"))
"""With its values in the text: they hardly ever change, and need not travel."""


class Step(NamedTuple):
    """How far a projection is after a small batch, and the events of the log that the batch went over."""

    position: int
    events: int


class Quick:
    """The small batches of one connection.

    Attributes:
        size: events of the log that one goes over at most.
    """

    def __init__(self, connection: Connection, size: int = QUICK_EVENTS) -> None:
        self._connection = connection
        self.size = size
        self._is_made = False
        self._kept: set[str] = set()
        self._calls: dict[tuple[tuple[Projection, ...], tuple[int, ...]], bytes] = {}
        """The names of the calls that are prepared, for which projections and shares."""

    async def apply(self, projections: Sequence[Projection], shares: Sequence[int]) -> list[Step]:
        """Applies the next small batch of each of these projections to its live tables.

        Args:
            projections: built-in ones, by the texts that this version has.
            shares: whose events.

        Returns:
            A step for each projection.

        Raises:
            EventStoreError: one of them failed, and with it those after it; what was before it is applied.
        """
        with translated():
            await self._keep(projections)
            call = await self._prepared(projections, shares)
            result = await self._run(partial(self._connection.pgconn.send_query_prepared, call, None))
            return list(map(Step, _numbers(result.get_value(0, 0)), _numbers(result.get_value(0, 1))))

    async def _prepared(self, projections: Sequence[Projection], shares: Sequence[int]) -> bytes:
        which = (tuple(projections), tuple(shares))
        if which not in self._calls:
            text = _APPLY.format(
                projections=sql.Literal([projection.name for projection in projections]),
                sources=sql.Literal([projection.source for projection in projections]),
                shares=sql.Literal(list(shares)),
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
