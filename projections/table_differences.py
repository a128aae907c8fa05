"""Comparing two sets of read tables, conversation by conversation, at equal checkpoints.

A comparison takes long, but blocks no session: the checkpoints of the live tables are locked only until the other
tables have reached the same positions and a snapshot of both is taken. The comparison reads that snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import errors, sql

from eventstore import EventStore
from eventstore.database.connection import PROJECTOR, Connection
from eventstore.database.queries import query
from eventstore.errors import RebuildError, translated
from projections.apply import Applier
from projections.projection import Projection

MAX_DIFFERENCES = 100
_ATTEMPTS = 20

_LOCK_LIVE = query("projections", "lock_live")
_STAGE_POSITIONS = query("projections", "stage_positions")
_TABLE_KEYS = query("projections", "table_keys")
_COMPARE = sql.SQL(query("projections", "compare"))
_SCHEMAS = "SELECT stage_schema('live'), stage_schema('next')"

_ROW_HASH = sql.SQL("hash_record_extended(t, 0)")
_TEXT_HASH = sql.SQL("hashtextextended(t::text, 0)")
"""Slower; for rows that have a column of a type without a hash function."""


@dataclass(frozen=True, slots=True)
class TableDifference:
    """A conversation whose rows in a table differ.

    Attributes:
        rows: the number of its rows in the live table.
        expected: the number of its rows in the other table.
    """

    table: str
    tenant_id: str | None
    conversation_id: UUID | None
    rows: int
    expected: int

    def __str__(self) -> str:
        rows = f"conversation {self.conversation_id}" if self.conversation_id else "the rows"
        difference = f"{self.rows} rows, {self.expected} expected" if self.rows != self.expected else "other values"
        return f"{rows} in {self.table} ({difference})"


async def compare_stages(
    store: EventStore, projection: Projection, applier: Applier, locking: Connection
) -> list[TableDifference]:
    """Return the differences between the live tables and those of the stage ``next``.

    Args:
        applier: applies batches to both.
        locking: another connection, of a role that may lock the checkpoints.

    Raises:
        RebuildError: they do not reach the same positions.
    """
    made_by = await applier.register(projection)
    if made_by is None:
        return []  # the definition of the live tables is not known, so they cannot be caught up
    with translated():
        rows = await (await locking.execute(_STAGE_POSITIONS, {"projection": projection.name})).fetchall()
    if not any(live_position for live_position, _ in rows):
        return []  # the live tables were never filled; catching them up, row by row, would take longest of all
    for _ in range(_ATTEMPTS):
        async with await store.connect(PROJECTOR) as snapshot:
            with translated():
                if await _take_snapshot(projection, made_by, applier, locking, snapshot):
                    [schemas] = await (await snapshot.execute(_SCHEMAS)).fetchall()
                    differences: list[TableDifference] = []
                    for table in projection.tables:
                        live, other = (sql.Identifier(schema, table) for schema in schemas)
                        differences += await compare_tables(snapshot, projection.name, table, live, other)
                    return differences
    raise RebuildError(
        f"the new tables of {projection.name} could not be compared: in {_ATTEMPTS} attempts they and the live ones "
        f"did not reach the same positions; repeat it: eventstore rebuild {projection.name}"
    )


async def _take_snapshot(
    projection: Projection, made_by: Projection, applier: Applier, locking: Connection, snapshot: Connection
) -> bool:
    """Begin a transaction that sees both stages at the same positions, and return whether they have reached these."""
    names = {"projection": projection.name}
    await applier.apply_all(made_by)
    async with locking.transaction():
        live: dict[int, int] = dict(await (await locking.execute(_LOCK_LIVE, names)).fetchall())
        await applier.apply_up_to(projection, "next", live)
        await snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        rows = await (await snapshot.execute(_STAGE_POSITIONS, names)).fetchall()
        return all(live_position == next_position for live_position, next_position in rows)


async def compare_tables(
    connection: Connection, projection: str, table: str, live: sql.Composable, other: sql.Composable
) -> list[TableDifference]:
    """Return the differences between two tables with the same columns, as the connection's snapshot shows them."""

    async def compare(row_hash: sql.SQL) -> Sequence[tuple[Any, ...]]:
        [keys] = await (await connection.execute(_TABLE_KEYS, {"table": table})).fetchall()
        tenant, conversation = (sql.Identifier("t", name) if name else sql.SQL("NULL") for name in keys)
        text = _COMPARE.format(tenant=tenant, conversation=conversation, row_hash=row_hash, live=live, other=other)
        parameters = {"limit": MAX_DIFFERENCES, "projection": projection}
        return await (await connection.execute(text, parameters)).fetchall()

    try:
        async with connection.transaction():
            rows = await compare(_ROW_HASH)
    except errors.UndefinedFunction:
        rows = await compare(_TEXT_HASH)
    return [TableDifference(table, *row) for row in rows]
