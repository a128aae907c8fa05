"""Comparing tables of two schemas, conversation by conversation, at equal checkpoints.

The comparison takes long, and nobody waits for it: the checkpoints of the live tables are locked only until the others
have come to the same positions and a snapshot of both is taken; what is compared is the snapshot.
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
from projections.apply import ALL_PARTITIONS, Applier
from projections.projection import Projection

MOST_DIFFERENCES = 100
_TRIES = 20

_LOCK_LIVE = query("projections", "lock_live")
_POSITIONS = query("projections", "stage_positions")
_KEYS = query("projections", "table_keys")
_COMPARE = query("projections", "compare")
_SCHEMAS = "SELECT stage_schema('live'), stage_schema('next')"

_BY_HASH = sql.SQL("hash_record_extended(t, 0)")
_BY_TEXT = sql.SQL("hashtextextended(t::text, 0)")
"""Slower; for rows with a column of a type that has no hash function."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A conversation whose rows in a table are not the same on both sides.

    Attributes:
        rows, expected: how many rows the live table has, and how many the other.
    """

    table: str
    tenant_id: str | None
    conversation_id: UUID | None
    rows: int
    expected: int

    def __str__(self) -> str:
        where = f"conversation {self.conversation_id}" if self.conversation_id else "the rows"
        what = f"{self.rows} rows, {self.expected} expected" if self.rows != self.expected else "other values"
        return f"{where} in {self.table} ({what})"


async def compare_stages(
    store: EventStore, projection: Projection, applier: Applier, locking: Connection
) -> list[Difference]:
    """The differences between the live and the next tables.

    Args:
        applier: brings the next tables up with the live ones.
        locking: another connection, of a role that may lock the checkpoints.

    Raises:
        RebuildError: they do not come to the same positions.
    """
    made_by = await applier.register(projection)
    if made_by is None:
        return []  # what made the live tables is not known, nor how far they should be
    with translated():
        rows = await (await locking.execute(_POSITIONS, {"projection": projection.name})).fetchall()
    if not any(live_at for live_at, _ in rows):
        return []  # they were never filled: to follow the log first, row by row, would take the longest of all
    for _ in range(_TRIES):
        snapshot = await store.connect(PROJECTOR)
        try:
            with translated():
                if not await _meet(projection, made_by, applier, locking, snapshot):
                    continue
                row = await (await snapshot.execute(_SCHEMAS)).fetchone()
                assert row is not None
                found: list[Difference] = []
                for table in projection.tables:
                    sides = sql.Identifier(row[0], table), sql.Identifier(row[1], table)
                    found += await compare_tables(snapshot, projection.name, table, *sides)
                return found
        finally:
            await snapshot.close()
    raise RebuildError(
        f"the new tables of {projection.name} could not be compared: in {_TRIES} tries both did not come to the same "
        f"positions; repeat it: eventstore rebuild {projection.name}"
    )


async def _meet(
    projection: Projection, made_by: Projection, applier: Applier, locking: Connection, snapshot: Connection
) -> bool:
    """Brings both stages to the same positions, and the other connection to a snapshot of that."""
    await applier.catch_up([made_by])
    async with locking.transaction():
        live: dict[int, int] = dict(
            await (await locking.execute(_LOCK_LIVE, {"projection": projection.name})).fetchall()
        )
        for position in set(live.values()):
            partitions = [partition for partition in ALL_PARTITIONS if live.get(partition) == position]
            await applier.catch_up([projection], stage="next", partitions=partitions, until=position)
        await snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        both = {"projection": projection.name}
        rows = await (await snapshot.execute(_POSITIONS, both)).fetchall()
        if all(live_at == next_at for live_at, next_at in rows):
            return True
    return False


async def compare_tables(
    connection: Connection,
    projection: str,
    table: str,
    live: sql.Composable,
    other: sql.Composable,
    *,
    most: int = MOST_DIFFERENCES,
) -> list[Difference]:
    """The differences between two tables of the same columns, as the connection's snapshot shows them."""
    try:
        async with connection.transaction():
            rows = await _compare(connection, projection, table, live, other, _BY_HASH, most)
    except errors.UndefinedFunction:
        rows = await _compare(connection, projection, table, live, other, _BY_TEXT, most)
    return [Difference(table, *row) for row in rows]


async def _compare(
    connection: Connection,
    projection: str,
    table: str,
    live: sql.Composable,
    other: sql.Composable,
    how: sql.SQL,
    most: int,
) -> Sequence[Any]:
    row = await (await connection.execute(_KEYS, {"table": table})).fetchone()
    assert row is not None
    tenant, conversation = (sql.Identifier("t", name) if name else sql.SQL("NULL") for name in row)
    text = sql.SQL(_COMPARE).format(tenant=tenant, conversation=conversation, row_hash=how, live=live, other=other)
    return await (await connection.execute(text, {"most": most, "projection": projection})).fetchall()
