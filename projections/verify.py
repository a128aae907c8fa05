"""Verifying that read tables equal the log; differing rows are named.

The log is replayed into temporary tables, which nobody else sees and which are gone with the connection, by the text
that the live tables are made by, up to exactly where they are; then both are compared in one snapshot. The replay needs
no lock and stops nobody. Of a conversation that is parked, only what stands before the event that failed is expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg import sql

from eventstore import EventStore
from eventstore.database.connection import APP, Connection
from eventstore.database.queries import query
from eventstore.errors import RebuildError, translated
from eventstore.read import horizon
from eventstore.schema_check import check_schema
from projections.apply import ALL_PARTITIONS, Applier
from projections.compare import Difference, compare_tables
from projections.projection import PROJECTIONS, Projection

# Proving that who may see which conversation is what the log says, of all tenants at once

NAME = "members"
"""In the place of a projection's name: the table is written by appends, and by no projection."""
_TABLE = "conversation_members"
_DIFFERING = query("projections", "differing_members")


async def verify_members(store: EventStore) -> Verified:
    """Verifies the members of all conversations, in one snapshot; of a conversation those are counted that differ."""
    position = await horizon(store.connections.projector)
    found = await store.connections.projector.fetch(_DIFFERING)
    counts: dict[tuple[str, UUID], Counter[str]] = {}
    rows = []
    for tenant, conversation, user, expected, is_found in found:
        count = counts.setdefault((tenant, conversation), Counter())
        for side, access in (("expected", expected), ("rows", is_found)):
            if access is not None:
                count[side] += 1
                rows.append(Row(_TABLE, side == "expected", f"({tenant},{conversation},{user},{access})"))
    differences = [
        Difference(_TABLE, tenant, conversation, count["rows"], count["expected"])
        for (tenant, conversation), count in counts.items()
    ]
    return Verified(NAME, position, 0, differences, rows)


# Proving that read tables equal the log, or naming the rows that do not

MOST_ROWS = 20
"""Named of each table."""

_VIEW = query("projections", "batch_of_all")
_SCRATCH = query("projections", "scratch")
_TARGETS = query("projections", "targets")
_RANGE = query("projections", "range")
_NEXT_POSITION = query("projections", "next_position")
_ROWS = query("projections", "differing_rows")
_SCHEMA = "SELECT stage_schema('live')"


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is in only one of the two: in the read table, or in what the log gives.

    Attributes:
        is_expected: whether the log gives it and the read table lacks it.
        row: as text.
    """

    table: str
    is_expected: bool
    row: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found.

    Attributes:
        position: up to which the log was replayed.
        events: replayed.
        differences: conversations whose rows are not what the log gives; the first hundred.
        rows: of those, the first twenty of each table.
    """

    projection: str
    position: int
    events: int
    differences: list[Difference] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


async def verify(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    on_progress: Callable[[str, int, int], None] = lambda name, position, goal: None,
) -> list[Verified]:
    """Verify the read tables of projections, one after the other, after what a store checks when it opens.

    Args:
        on_progress: called with a projection's name, the position replayed, and the one to come to.

    Raises:
        RebuildError: the text that made the tables is not known.
        SchemaError: the schema lacks something, or events below a checkpoint are missing: what is left could be equal.
    """
    async with await store.connect(APP) as connection:
        await check_schema(connection, store.settings)
    return [await _verify(store, projection, on_progress) for projection in projections]


async def _verify(store: EventStore, projection: Projection, on_progress: Callable[[str, int, int], None]) -> Verified:
    applier = await Applier.open(store, view="SELECT")
    try:
        made_by = await applier.register(projection)
        if made_by is None:
            raise RebuildError(
                f"what the tables of {projection.name} are made by is not known: eventstore rebuild {projection.name}"
            )
        connection = applier.connection
        with translated():
            for table in made_by.tables:
                await connection.execute(sql.SQL(_SCRATCH).format(table=sql.Identifier(table)))
            replay = _Replay(connection, made_by, on_progress)
            await connection.execute(_VIEW.encode())
            await replay.run()  # most of it, before the snapshot
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await replay.run()
            row = await (await connection.execute(_SCHEMA)).fetchone()
            assert row is not None
            found = Verified(projection.name, replay.position, replay.events)
            for table in made_by.tables:
                live, scratch = sql.Identifier(row[0], table), sql.Identifier("pg_temp", table)
                differing = await compare_tables(connection, projection.name, table, live, scratch)
                found.differences.extend(differing)
                if differing:
                    text = sql.SQL(_ROWS).format(live=live, other=scratch)
                    rows = await (await connection.execute(text, {"most": MOST_ROWS})).fetchall()
                    found.rows.extend(Row(table, *values) for values in rows)
            await connection.execute("ROLLBACK")
        return found
    finally:
        await applier.close()


class _Replay:
    """Fills the temporary tables, partition by partition, up to where the live ones are."""

    def __init__(
        self, connection: Connection, projection: Projection, on_progress: Callable[[str, int, int], None]
    ) -> None:
        self._connection = connection
        self._projection = projection
        self._on_progress = on_progress
        self._at = dict.fromkeys(ALL_PARTITIONS, 0)
        self.position = self.events = 0

    async def run(self) -> None:
        """Goes on to where the live tables are now."""
        names: dict[str, Any] = {"projection": self._projection.name}
        targets: dict[int, int] = dict(await (await self._connection.execute(_TARGETS, names)).fetchall())
        self.position = max(targets.values(), default=0)
        ways = {(self._at[partition], targets.get(partition, 0)) for partition in ALL_PARTITIONS}
        for lower, target in sorted(ways):
            partitions = [
                partition
                for partition in ALL_PARTITIONS
                if (self._at[partition], targets.get(partition, 0)) == (lower, target)
            ]
            await self._apply(partitions, lower, target)

    async def _apply(self, partitions: list[int], lower: int, target: int) -> None:
        while lower < target:
            bounds = {"lower": lower, "target": target, "size": self._projection.largest_batch}
            row = await (await self._connection.execute(_NEXT_POSITION, bounds)).fetchone()
            upper, events = (row[0], row[1]) if row and row[0] is not None else (target, 0)
            async with self._connection.transaction():
                parameters = {
                    "projection": self._projection.name,
                    "partitions": partitions,
                    "lower": str(lower),
                    "upper": str(upper),
                }
                await self._connection.execute(_RANGE, parameters)
                await self._projection.fold(self._connection)
            self.events += events
            lower = upper
            self._on_progress(self._projection.name, lower, target)
        for partition in partitions:
            self._at[partition] = target
