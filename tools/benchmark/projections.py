"""Projections: applying a log to read tables, rebuilding them, and searching a long log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from math import ceil
from time import perf_counter
from typing import Any

from eventstore import EventStore, MessageAdded, NewEvent
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from projections import Search, catch_up, rebuild, select_projections
from projections.rebuild import JOBS
from tools.benchmark.measurement import Benchmark, Figure, Side, Target, no_collection, proven
from tools.benchmark.messages import Message, conversations, fill
from tools.benchmark.peers import INSTALL, PeerMissing
from tools.benchmark.processes import READ_TABLES, process

_PEER_FRACTION = 25
"""The peer applies so many times fewer events, because it takes that much longer."""
_REBUILD_CALLERS = 16


async def projecting(bench: Benchmark) -> list[Figure]:
    """Compare applying a log to three read tables with ``eventsourcing``'s runner filling one, a row a message."""
    try:
        from tools.benchmark.peers import eventsourcing
    except ImportError as missing:
        raise PeerMissing(f"{missing}: {INSTALL}") from missing
    rows = bench.scale.rows
    theirs = conversations("projecting", max(rows // _PEER_FRACTION // 50, 1), 50)
    workspace = bench.workspace
    with (
        workspace.own_schema("peer_projecting") as schema,
        workspace.migrated("projecting") as settings,
        eventsourcing.filled_application(workspace, schema, theirs) as environment,
    ):
        async with EventStore(settings) as store:
            messages = bench.counter("SELECT count(*) FROM messages", settings.db_schema, as_owner=True)

            async def ours(seed: str) -> float:
                await fill(store, seed, rows)
                async with proven("projecting", messages) as applied:
                    with no_collection():
                        rate = await _catch_up_rate(store, rows)
                    applied(rows)
                return rate

            async def other(_seed: str) -> float:
                return await asyncio.to_thread(eventsourcing.project, environment, sum(map(len, theirs)))

            applied, run = await bench.in_turn("projecting", [ours, other], slices=1)
    what = f"{', '.join(READ_TABLES)} of {rows:,} events / eventsourcing's ProjectionRunner"
    return [Figure("projecting", what, "events/s", applied, run, Target(30))]


async def _catch_up_rate(store: EventStore, events: int) -> float:
    """Return the events per second that ``catch_up`` applies to the read tables."""
    begin = perf_counter()
    await catch_up(store, select_projections(READ_TABLES))
    return events / (perf_counter() - begin)


async def rebuilding(bench: Benchmark) -> list[Figure]:
    """Compare a rebuild, from start to swap, with INSERT … SELECT, and appends during a rebuild with appends alone."""
    projections = select_projections(READ_TABLES)
    rows = bench.scale.events
    with bench.workspace.migrated("rebuilding") as settings:
        async with EventStore(settings) as store:
            await fill(store, "rebuilding", rows)
            await catch_up(store, projections)
            async with await store.connect(role=None) as connection:
                await connection.execute("VACUUM ANALYZE events")
                await connection.execute("SET ROLE eventstore_owner")  # row-level security hides no event from it

                async def ours(_seed: str) -> float:
                    with no_collection():
                        began = perf_counter()
                        await rebuild(store, projections)
                        return rows / (perf_counter() - began)

                async def by_hand(_seed: str) -> float:
                    for table in (*READ_TABLES, "task_artifacts"):
                        await connection.execute(f"DROP TABLE IF EXISTS by_hand_{table}".encode())
                        await connection.execute(f"CREATE TABLE by_hand_{table} (LIKE {table} INCLUDING ALL)".encode())
                    began = perf_counter()
                    await connection.execute(query("tools.benchmark", "insert_select").encode())
                    seconds = perf_counter() - began
                    if (written := await _rows(connection, "by_hand_messages")) != await _rows(connection, "messages"):
                        raise AssertionError(f"INSERT … SELECT has written {written:,} messages: the figure is void")
                    return rows / seconds

                rebuilt, inserted = await bench.in_turn("rebuilding", [ours, by_hand], slices=1)
            meanwhile, alone = await _appends_during_rebuild(bench, store)
    what = f"rebuild of {', '.join(READ_TABLES)} from {rows:,} events / INSERT … SELECT into the same tables"
    remark = f"a rebuild uses {JOBS} connections, the other side one"
    cost = f"{_REBUILD_CALLERS} callers append while tables are rebuilt / without"
    return [
        Figure("rebuilding", what, "events/s", rebuilt, inserted, Target(0.6), remark),
        Figure("rebuilding", cost, "events/s", meanwhile, alone, Target(0.8)),
    ]


async def _rows(connection: Connection, table: str) -> int:
    [(rows,)] = await (await connection.execute(f"SELECT count(*) FROM {table}".encode())).fetchall()
    return int(rows)


async def _appends_during_rebuild(bench: Benchmark, store: EventStore) -> tuple[list[float], list[float]]:
    side = bench.appends(_REBUILD_CALLERS, store)
    meanwhile, alone = [], []
    await side("warm-up")
    for run in range(bench.scale.runs):
        bench.report(f"appends during a rebuild, run {run + 1} of {bench.scale.runs}")
        async with process(store.settings, "rebuild"):
            meanwhile.append(await bench.mean_of_slices(side, f"{run}"))
        alone.append(await bench.mean_of_slices(side, f"{run}/alone"))
    return meanwhile, alone


_LARGE_LOG = 5_000_000
"""From so many messages on, a page of search results may take a second; below, a tenth of one."""
_WORD_FREQUENCIES = {"everywhere": 0.7, "fiftieth": 0.02, "seldom": 0.001}
"""Words that are put into a share of the messages."""
_SEARCHES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "rare words": [("onlyonce", {}), ("onlyonce", {"by": "time"}), ("seldom", {}), ("seldom", {"by": "time"})],
    "common words": [
        ("everywhere", {}), ("everywhere", {"by": "time"}), ("fiftieth", {}), ("fiftieth", {"by": "time"}),
        ("everywhere fiftieth", {}), ("everywhere -fiftieth", {}), ("everyw*", {}),
    ],
    "with filters": [
        ("everywhere", {"role": "assistant"}), ("fiftieth", {"role": "user"}), ("everywhere", {"actor": "inspector"}),
        ("everywhere", {"actor": "inspector", "by": "time"}), ("seldom", {"kind": "message", "language": "pt"}),
    ],
    "misspelt words": [("everwhere", {}), ("fiftieht", {})],
}  # fmt: skip


async def searching(bench: Benchmark) -> list[Figure]:
    """Measure pages of search results in a long log, and what a search costs the other projections."""
    size = bench.scale.events
    limit = 1.0 if size >= _LARGE_LOG else 0.1
    with bench.workspace.migrated("search") as settings:
        async with EventStore(settings) as store:
            await fill(store, "searching", size, report=bench.report, change=_with_searchable_words())
            bench.report(f"indexing {size:,} messages")
            begin = perf_counter()
            await rebuild(store, select_projections(["search"]))  # following would index a long log row by row
            rate = size / (perf_counter() - begin)
            await bench.workspace.vacuum_and_checkpoint(settings.db_schema)
            sides = [_search_page(bench, Search(store), searches) for searches in _SEARCHES.values()]
            measured = await bench.in_turn("searching", sides, slices=1)
    return [
        Figure(
            "searching", f"99 of 100 pages at {size:,} messages, {name} / {limit:g} s", "s", ours, [limit] * len(ours),
            Target(1.0, at_least=False), f"indexed at {rate:,.0f} messages a second",
        )
        for name, ours in zip(_SEARCHES, measured, strict=True)
    ] + [await _beside_search(bench)]  # fmt: skip


def _search_page(bench: Benchmark, search: Search, searches: Sequence[tuple[str, dict[str, Any]]]) -> Side:
    """Return a side that measures the seconds that 99 of 100 pages do not exceed."""

    async def measure(_seed: str) -> float:
        taken: list[float] = []
        for words, filters in searches:
            await search.page(words, **filters)  # the first page is read from disk
        with no_collection():
            for _ in range(bench.scale.rounds):
                for words, filters in searches:
                    begin = perf_counter()
                    await search.page(words, **filters)
                    taken.append(perf_counter() - begin)
        return sorted(taken)[ceil(len(taken) * 0.99) - 1]

    return measure


def _with_searchable_words() -> Any:
    """Return a function that turns messages into events; some contain the words that are searched for."""
    rng = random.Random("searching")
    first = iter(["onlyonce"])

    def change(message: Message) -> NewEvent:
        words = [word for word, share in _WORD_FREQUENCIES.items() if rng.random() < share]
        words.extend(first)  # into the first message only
        actor = "inspector" if rng.random() < 0.001 else message.actor
        return NewEvent(MessageAdded(role=message.role, content=" ".join([*words, message.text])), actor=actor)

    return change


async def _beside_search(bench: Benchmark) -> Figure:
    """Compare filling the other read tables while the search projection follows too with filling them alone."""
    rows = bench.scale.rows
    with bench.workspace.migrated("beside") as settings:
        async with EventStore(settings) as store:

            async def alone(seed: str) -> float:
                await fill(store, f"alone/{seed}", rows)
                return await _catch_up_rate(store, rows)

            async def beside(seed: str) -> float:
                await fill(store, f"beside/{seed}", rows)
                search = asyncio.create_task(catch_up(store, select_projections(["search"])))
                try:
                    return await _catch_up_rate(store, rows)
                finally:
                    await search

            await catch_up(store)
            ours, other = await bench.in_turn("following beside the search", [beside, alone], slices=1)
    what = "events a second into the other tables while the search follows / alone"
    return Figure("searching", what, "events/s", ours, other, Target(0.67))
