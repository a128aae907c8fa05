"""Verifying that read tables equal the log, and naming the rows that do not.

The log is replayed into temporary tables, by the definition that made the live tables, up to exactly their positions;
then one snapshot compares both. Nobody else sees the temporary tables, and they vanish with the connection. The replay
takes no lock and blocks no session. Of a parked conversation, only the events before the one that failed are expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from psycopg import sql

from eventstore import EventStore
from eventstore.database.connection import APP, Connection
from eventstore.database.queries import query
from eventstore.errors import RebuildError, translated
from eventstore.read import horizon
from eventstore.schema_check import check_schema
from projections.apply import Applier
from projections.projection import ALL_PARTITIONS, PROJECTIONS, Projection
from projections.table_differences import TableDifference, compare_tables

MAX_ROWS = 20
"""Differing rows that are named of each table and side."""

_BATCH_VIEW = query("projections", "batch_of_all")
_CREATE_SCRATCH = sql.SQL(query("projections", "create_scratch"))
_TARGETS = query("projections", "targets")
_REPLAY_RANGE = query("projections", "replay_range")
_NEXT_POSITION = query("projections", "next_position")
_DIFFERING_ROWS = sql.SQL(query("projections", "differing_rows"))
_SCHEMA = "SELECT stage_schema('live')"

OnProgress = Callable[[str, int, int], None]
"""Called with a projection's name, the position replayed, and the position to reach."""


@dataclass(frozen=True, slots=True)
class DifferingRow:
    """A row that is only in the read table, or only in what the log gives.

    Attributes:
        is_expected: whether the log gives it and the read table lacks it.
        row: as text.
    """

    table: str
    is_expected: bool
    row: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome of a verification.

    Attributes:
        position: the position up to which the log was replayed.
        events: the number of replayed events.
        differences: conversations whose rows are not what the log gives; the first hundred.
        rows: the first twenty of their rows, of each table and side.
    """

    projection: str
    position: int
    events: int
    differences: list[TableDifference] = field(default_factory=list)
    rows: list[DifferingRow] = field(default_factory=list)


async def verify(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    on_progress: OnProgress = lambda name, position, goal: None,
) -> list[Verified]:
    """Verify the schema as a store does when it opens, then the read tables of projections, one after the other.

    Raises:
        RebuildError: the definition that made the tables is not known.
        SchemaError: the schema lacks something, or events below a checkpoint are missing, so that a comparison with
            the rest of the log would prove nothing.
    """
    async with await store.connect(APP) as connection:
        await check_schema(connection, store.settings)
    return [await _verify(store, projection, on_progress) for projection in projections]


async def _verify(store: EventStore, projection: Projection, on_progress: OnProgress) -> Verified:
    async with await Applier.open(store, view=_BATCH_VIEW) as applier:
        made_by = await applier.register(projection)
        if made_by is None:
            raise RebuildError(
                f"the definition that made the tables of {projection.name} is not known: "
                f"eventstore rebuild {projection.name}"
            )
        connection = applier.connection
        with translated():
            for table in made_by.tables:
                await connection.execute(_CREATE_SCRATCH.format(table=sql.Identifier(table)))
            replay = _Replay(connection, made_by, on_progress)
            await replay.run()  # most of it, before the snapshot
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await replay.run()
            verified = Verified(projection.name, replay.position, replay.events)
            [(schema,)] = await (await connection.execute(_SCHEMA)).fetchall()
            for table in made_by.tables:
                live, scratch = sql.Identifier(schema, table), sql.Identifier("pg_temp", table)
                differences = await compare_tables(connection, projection.name, table, live, scratch)
                verified.differences.extend(differences)
                if differences:
                    text = _DIFFERING_ROWS.format(live=live, other=scratch)
                    rows = await (await connection.execute(text, {"limit": MAX_ROWS})).fetchall()
                    verified.rows.extend(DifferingRow(table, *values) for values in rows)
            await connection.execute("ROLLBACK")
        return verified


@dataclass
class _Replay:
    """The log, applied to the temporary tables partition by partition, up to the positions of the live ones."""

    connection: Connection
    projection: Projection
    on_progress: OnProgress
    positions: dict[int, int] = field(default_factory=lambda: dict.fromkeys(ALL_PARTITIONS, 0))
    position: int = 0
    events: int = 0

    async def run(self) -> None:
        """Replay the log up to the present positions of the live tables."""
        names = {"projection": self.projection.name}
        targets: dict[int, int] = dict(await (await self.connection.execute(_TARGETS, names)).fetchall())
        self.position = max(targets.values(), default=0)
        by_range: dict[tuple[int, int], list[int]] = {}
        for partition in ALL_PARTITIONS:
            by_range.setdefault((self.positions[partition], targets.get(partition, 0)), []).append(partition)
        for (lower, target), partitions in sorted(by_range.items()):
            await self._apply(partitions, lower, target)
            self.positions |= dict.fromkeys(partitions, target)

    async def _apply(self, partitions: list[int], lower: int, target: int) -> None:
        while lower < target:
            limits = {"lower": lower, "target": target, "size": self.projection.largest_batch}
            row = await (await self.connection.execute(_NEXT_POSITION, limits)).fetchone()
            upper, events = row if row and row[0] is not None else (target, 0)
            replayed = {
                "projection": self.projection.name,
                "partitions": partitions,
                "lower": str(lower),
                "upper": str(upper),
            }
            async with self.connection.transaction():
                await self.connection.execute(_REPLAY_RANGE, replayed)
                await self.projection.fold(self.connection)
            self.events += events
            lower = upper
            self.on_progress(self.projection.name, lower, target)


# The members of conversations: written by appends, not by a projection, and derived from the log like a read table

MEMBERS = "members"
"""The name for the members of conversations, in place of the name of a projection."""
_MEMBERS_TABLE = "conversation_members"
_DIFFERING_MEMBERS = query("projections", "differing_members")


async def verify_members(store: EventStore) -> Verified:
    """Verify who may see which conversation, for all tenants in one snapshot. Only the members that differ count."""
    position = await horizon(store.connections.projector)
    counts: dict[tuple[str, UUID], Counter[str]] = {}
    rows = []
    for tenant, conversation, user, expected, found in await store.connections.projector.fetch(_DIFFERING_MEMBERS):
        count = counts.setdefault((tenant, conversation), Counter())
        for side, access in (("expected", expected), ("rows", found)):
            if access is not None:
                count[side] += 1
                rows.append(
                    DifferingRow(_MEMBERS_TABLE, side == "expected", f"({tenant},{conversation},{user},{access})")
                )
    differences = [
        TableDifference(_MEMBERS_TABLE, tenant, conversation, count["rows"], count["expected"])
        for (tenant, conversation), count in counts.items()
    ]
    return Verified(MEMBERS, position, 0, differences, rows)
