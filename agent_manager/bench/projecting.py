"""Applying a log to read tables, against ``eventsourcing``'s projection runner applying one like it."""

from __future__ import annotations

import asyncio
from time import perf_counter

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.filling import fill
from agent_manager.bench.messages import conversations
from agent_manager.bench.rates import no_collection
from agent_manager.bench.work import Bench, opened
from projections import catch_up, named

_TARGET = Target(30)
_NAMES = ("conversations", "messages", "tasks")
_THEIR_PART = 25
"""They are given so much less to do, or nobody would wait for it."""


async def projecting(bench: Bench) -> list[Figure]:
    """Ours fills three tables, theirs one, with a row for each message."""
    try:
        from agent_manager.bench.peers import eventsourcing_projection as theirs
    except ImportError as missing:
        bench.skip(f"projecting: {missing}")
        return []
    rows = bench.scale.rows
    number = max(rows // _THEIR_PART // 50, 1)
    schema = bench.place.own_schema("peer_projecting")
    settings = bench.place.migrated("projecting")
    try:
        with theirs.filled(bench.place, schema, conversations("projecting", number, 50)) as environment:
            async with opened(settings) as store:

                async def ours(seed: str) -> float:
                    await fill(store, seed, rows)
                    with no_collection():
                        began = perf_counter()
                        await catch_up(store, named(_NAMES))
                        return rows / (perf_counter() - began)

                async def other(_seed: str) -> float:
                    return await asyncio.to_thread(theirs.project, environment)

                applied, run = await bench.in_turn("projecting", [ours, other], slices=1)
    finally:
        bench.place.drop_schema(schema)
        bench.place.drop_schema(settings.db_schema)
    what = f"{', '.join(_NAMES)} of {rows:,} events / eventsourcing's ProjectionRunner"
    return [Figure("projecting", what, "events/s", applied, run, _TARGET)]
