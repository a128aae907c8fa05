"""What the order of the log costs: the same appends with the gate, and in another schema without it."""

from __future__ import annotations

import asyncio

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.work import Bench, opened
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.ending import end
from eventstore.errors import ServerError

_TARGET = Target(0.9)
_CALLERS = (1, 16)
_LOOKS = 100


async def gate(bench: Bench) -> list[Figure]:
    """One caller and 16."""
    settings = bench.place.migrated("gateless")
    schema = settings.db_schema
    async with bench.place.connections(1, schema) as (connection,):
        await connection.execute(query("agent_manager.bench", "without_gate"))
    figures = []
    async with opened(settings) as without:
        if not await _holds_gates(bench, bench.store) or await _holds_gates(bench, without):
            raise ServerError("the appends do not take their gate in hold_gate(), so it could not be left out")
        for callers in _CALLERS:
            words = f"{callers} concurrent appends" if callers > 1 else "appends"
            ours, other = await bench.in_turn(
                f"the gate, {callers} callers", [bench.appends(callers), bench.appends(callers, without)]
            )
            figures.append(Figure("gate", f"{words} / the same without the gate", "events/s", ours, other, _TARGET))
    bench.place.drop_schema(schema)
    return figures


async def _holds_gates(bench: Bench, store: EventStore) -> bool:
    """Whether a gate is seen while events are appended."""
    appending = asyncio.create_task(_append_on(bench, store))
    try:
        async with bench.place.connections(1, store.settings.db_schema) as (connection,):
            for _ in range(_LOOKS):
                row = await (await connection.execute(query("agent_manager.bench", "gates_held"))).fetchone()
                if row is not None and row[0]:
                    return True
        return False
    finally:
        await end([appending])


async def _append_on(bench: Bench, store: EventStore) -> None:
    side = bench.appends(_CALLERS[-1], store)
    while True:
        await side("gate/look")
