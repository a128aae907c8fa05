"""Bytes on disk: the log with its indexes, against a bare table of the first draft's columns with as many indexes."""

from __future__ import annotations

from psycopg import sql

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.filling import fill
from agent_manager.bench.work import Bench, opened
from eventstore.database.connection import Connection
from eventstore.database.queries import query

_TARGET = Target(1.25, at_least=False)
_FURTHER_INDEXES = (
    "(conversation_id)", "(timestamp DESC)", "(conversation_id, timestamp)", "(event_type)", "(actor)",
    "(conversation_id, event_type)", "(actor, timestamp)",
)  # fmt: skip
"""Beside the primary key, as many as the log has, in the order in which one would want them."""


async def sizing(bench: Bench) -> list[Figure]:
    """The same rows in both, measured after each of several imports."""
    settings = bench.place.migrated("size")
    each = bench.scale.rows // bench.scale.runs
    rows = 0
    ours: list[float] = []
    other: list[float] = []
    async with opened(settings) as store, bench.place.connections(1, settings.db_schema) as (connection,):
        indexes = await _indexes(connection, "events")
        await connection.execute(query("agent_manager.bench", "seed_table"))
        for columns in _FURTHER_INDEXES[: indexes - 1]:
            await connection.execute(sql.SQL("CREATE INDEX ON seed_events " + columns))
        for run in range(bench.scale.runs):
            bench.tell(f"bytes on disk, run {run + 1} of {bench.scale.runs}")
            last = await _number(connection, "SELECT coalesce(max(e.position), 0) FROM events e")
            await fill(store, f"size/{run}", each)
            rows += each
            await connection.execute(query("agent_manager.bench", "seed_copy"), (last,))
            await connection.execute("VACUUM (ANALYZE) events, seed_events")
            for values, table in ((ours, "events"), (other, "seed_events")):
                size = await _number(connection, "SELECT pg_total_relation_size(%s::regclass)", table)
                values.append(size / rows)
    bench.place.drop_schema(settings.db_schema)
    what = f"an event in the log / in a bare table of six columns, both with {indexes} indexes"
    return [Figure("size", what, "bytes", ours, other, _TARGET, f"{rows:,} rows in the end")]


async def _indexes(connection: Connection, table: str) -> int:
    return await _number(connection, "SELECT count(*) FROM pg_index i WHERE i.indrelid = %s::regclass", table)


async def _number(connection: Connection, text: str, *parameters: object) -> int:
    row = await (await connection.execute(text.encode(), parameters)).fetchone()
    assert row is not None
    return int(row[0])
