"""Rebuilding the read tables, against INSERT … SELECT by hand; and what it costs those who append meanwhile."""

from __future__ import annotations

from statistics import mean
from time import perf_counter

from agent_manager.bench import children
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.filling import fill
from agent_manager.bench.rates import no_collection
from agent_manager.bench.rebuilder import NAMES
from agent_manager.bench.work import Bench, opened
from eventstore import EventStore
from eventstore.database.queries import query
from projections import catch_up, named, rebuild
from projections.rebuild import JOBS

_SPEED, _COST = Target(0.6), Target(0.8)
_CALLERS = 16


async def rebuilding(bench: Bench) -> list[Figure]:
    """A rebuild from its beginning to its swap, comparison included; the log has ``events`` events."""
    projections = named(NAMES)
    rows = bench.scale.events
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
                for table in (*NAMES, "task_artifacts"):
                    await connection.execute(f"DROP TABLE IF EXISTS by_hand_{table}".encode())
                    await connection.execute(f"CREATE TABLE by_hand_{table} (LIKE {table} INCLUDING ALL)".encode())
                text = query("agent_manager.bench", "insert_select").encode()
                began = perf_counter()
                await connection.execute(text)
                return rows / (perf_counter() - began)

            ours_took, others_took = await bench.in_turn("rebuilding", [ours, by_hand], slices=1)
        what = f"rebuild of {', '.join(NAMES)} from {rows:,} events / INSERT … SELECT into the same tables"
        remark = f"{JOBS} connections fill; the other side is one"
        speed = Figure("rebuilding", what, "events/s", ours_took, others_took, _SPEED, remark)
        cost = await _cost(bench, store)
    bench.place.drop_schema(store.settings.db_schema)
    return [speed, cost]


async def _cost(bench: Bench, store: EventStore) -> Figure:
    side = bench.appends(_CALLERS, store)
    meanwhile, alone = [], []
    await side("warm-up")
    for run in range(bench.scale.runs):
        bench.tell(f"appends during a rebuild, run {run + 1} of {bench.scale.runs}")
        async with children.rebuilding(store.settings):
            meanwhile.append(mean([await side(f"{run}/{part}") for part in range(bench.scale.slices)]))
        alone.append(mean([await side(f"{run}/{part}/alone") for part in range(bench.scale.slices)]))
    what = f"{_CALLERS} callers append while tables are rebuilt / without"
    return Figure("rebuilding", what, "events/s", meanwhile, alone, _COST)
