"""Rebuilding the read tables, against INSERT … SELECT written by hand into bare tables like them."""

from __future__ import annotations

from time import perf_counter

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.filling import fill
from agent_manager.bench.rates import no_collection
from agent_manager.bench.work import Bench, opened
from eventstore.database.queries import query
from projections import catch_up, named, rebuild
from projections.rebuild import JOBS

_TARGET = Target(0.6)
_NAMES = ("conversations", "messages", "tasks")


async def rebuilding(bench: Bench) -> list[Figure]:
    """A rebuild from its beginning to its swap, comparison included; the log has ``rows`` events."""
    projections = named(_NAMES)
    rows = bench.scale.rows
    async with opened(bench.place.migrated("rebuilding")) as store:
        await fill(store, "rebuilding", rows)
        await catch_up(store, projections)
        async with await store.connect(role=None) as connection:
            await connection.execute("VACUUM ANALYZE events")

            async def ours(_seed: str) -> float:
                with no_collection():
                    began = perf_counter()
                    await rebuild(store, projections)
                    return rows / (perf_counter() - began)

            async def by_hand(_seed: str) -> float:
                for table in (*_NAMES, "task_artifacts"):
                    await connection.execute(f"DROP TABLE IF EXISTS by_hand_{table}".encode())
                    await connection.execute(f"CREATE TABLE by_hand_{table} (LIKE {table} INCLUDING ALL)".encode())
                text = query("agent_manager.bench", "insert_select").encode()
                began = perf_counter()
                await connection.execute(text)
                return rows / (perf_counter() - began)

            ours_took, others_took = await bench.in_turn("rebuilding", [ours, by_hand], slices=1)
    bench.place.drop_schema(store.settings.db_schema)
    what = f"rebuild of {', '.join(_NAMES)} from {rows:,} events / INSERT … SELECT into the same tables"
    remark = f"{JOBS} connections fill; the other side is one"
    return [Figure("rebuilding", what, "events/s", ours_took, others_took, _TARGET, remark)]
