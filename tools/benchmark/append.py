"""Appends against bare inserts: single, concurrent and in bulk; beside workers, without the gate, in a long log.

Every function is one comparison. The peers' appends are in :mod:`tools.benchmark.peers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from time import perf_counter
from typing import TypeVar
from uuid import UUID, uuid4

from psycopg import sql

from eventstore import Append, EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import ServerError
from eventstore.read import horizon
from projections import wait_for
from tools.benchmark.bare_insert import (
    Row,
    available_connections,
    bare_rows,
    bare_side,
    insert_many,
    pgbench_sides,
    row,
)
from tools.benchmark.measurement import Benchmark, Figure, Side, Stored, Target, drive, no_collection, proven
from tools.benchmark.messages import Message, conversations, fill, fill_conversation, streams
from tools.benchmark.processes import process, workers

T = TypeVar("T")

_CATCH_UP_SECONDS = 300
_BULK_EVENTS = 1000
_WARM_UP_APPENDS = 10
_GATE_LOOKS = 1000
_FLUSH_CONNECTIONS = 16


async def one_caller(bench: Benchmark) -> list[Figure]:
    """Compare the appends of one caller with inserts over one connection."""
    async with bench.workspace.connections(1) as connections:
        sides = [bench.appends(1), bare_side(bench, 1, connections), *pgbench_sides(bench, 1)]
        ours, other, *pgbench = await bench.in_turn("one caller", sides)
    return [
        Figure("one-caller", "append / bare INSERT over one connection", "events/s", ours, other, Target(0.85)),
        *(Figure("one-caller", "append / the same INSERT by pgbench -c 1", "events/s", ours, by) for by in pgbench),
    ]


async def many_callers(bench: Benchmark) -> list[Figure]:
    """Compare the appends of concurrent callers with single-row inserts over 16 connections, or over more."""
    return [figure for callers in bench.scale.callers if callers > 1 for figure in await _many_callers(bench, callers)]


async def _many_callers(bench: Benchmark, callers: int) -> list[Figure]:
    most, few = min(callers, await available_connections(bench)), min(callers, 16)
    async with bench.workspace.connections(max(most, few)) as connections:
        numbers = [few, most] if most > few else [few]
        limits = [bare_side(bench, callers, connections[:number]) for number in numbers]
        sides = [bench.appends(callers), *limits, *pgbench_sides(bench, few)]
        ours, *measured = await bench.in_turn(f"{callers} callers", sides)
    others, pgbench = measured[: len(limits)], measured[len(limits) :]
    faster = [max(values) for values in zip(*others, strict=True)]
    each = [f"{sum(values) / len(values):,.0f}/s over {n}" for values, n in zip(others, numbers, strict=True)]
    remark = (
        f"the faster of bare with {' and '.join(each)} connections" if most > few else f"bare over {few} connections"
    )
    what = f"{callers} concurrent appends / bare INSERTs"
    by_pgbench = f"{callers} concurrent appends / the same INSERT by pgbench -c {few}"
    target = {16: Target(3), 256: Target(5)}.get(callers)
    return [
        Figure("many-callers", what, "events/s", ours, faster, target, remark),
        *(Figure("many-callers", by_pgbench, "events/s", ours, values) for values in pgbench),
    ]


async def slow_flush(bench: Benchmark) -> list[Figure]:
    """Compare appends with single-row inserts over 16 connections where a flush takes a millisecond longer.

    The server sleeps before each flush (``commit_delay``), holding the lock that a flush holds. What is committed
    meanwhile is flushed along with it, which a flush that takes as long would not do: that favours the inserts.
    """
    workspace = bench.workspace
    async with bench.connection() as connection:
        found = await connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if not workspace.own_database or await found.fetchone() != (True,):
            bench.skip("slow-flush: only a superuser may set commit_delay, in a database of the benchmark's own")
            return []
        await connection.execute(query("tools.benchmark", "slow_flush").encode())
    figures = []
    try:
        async with EventStore(workspace.settings) as store, workspace.connections(_FLUSH_CONNECTIONS) as connections:
            for callers in bench.scale.callers:
                sides = [
                    bench.appends(callers, store), bare_side(bench, callers, connections[:callers]),
                ]  # fmt: skip
                ours, other = await bench.in_turn(f"a slow flush, {callers} callers", sides)
                what = f"{callers} concurrent appends / bare INSERTs, each flush 1 ms longer"
                target = Target(6) if callers == 16 else None
                remark = f"bare over {min(callers, _FLUSH_CONNECTIONS)} connections"
                figures.append(Figure("slow-flush", what, "events/s", ours, other, target, remark))
    finally:
        async with bench.connection() as connection:
            await connection.execute(query("tools.benchmark", "normal_flush").encode())
    return figures


async def bulk(bench: Benchmark) -> list[Figure]:
    """Compare imports of 1,000 events in one append with one set-based INSERT of the same rows."""

    async def append_one(_: int, given: list[Append]) -> None:
        await bench.store.append(given[0].conversation_id, given[0].events)

    async def append_all(_: int, given: list[Append]) -> None:
        await bench.store.append_all(given)

    async with bench.connection() as connection:

        async def insert(_: int, rows: list[Row]) -> None:
            await insert_many(connection, rows)

        figures = []
        for number, append, words in ((1, append_one, "append of 1,000"), (100, append_all, "append_all of 100 × 10")):
            sides = [
                _import(bench, number, _appends, append, bench.events_of(bench.store)),
                _import(bench, number, _rows, insert, bare_rows(bench)),
            ]
            ours, other = await bench.in_turn(words, sides)
            what = f"{words} events / one INSERT from binary arrays"
            figures.append(Figure("bulk", what, "events/s", ours, other, Target(0.5)))
    return figures


def _appends(given: list[list[Message]]) -> list[Append]:
    return [Append(messages[0].conversation_id, [message.event() for message in messages]) for messages in given]


def _rows(given: list[list[Message]]) -> list[Row]:
    return [row(message) for messages in given for message in messages]


def _import(
    bench: Benchmark,
    number: int,
    prepare: Callable[[list[list[Message]]], T],
    append: Callable[[int, T], Awaitable[None]],
    stored: Stored,
) -> Side:
    """Return a side that measures imports of a number of conversations, in events per second."""
    count = 1 if bench.scale.quick else 3

    async def measure(seed: str) -> float:
        length = _BULK_EVENTS // number
        imports = [prepare(conversations(f"{seed}/{index}", number, length)) for index in range(count + 1)]
        async with proven("bulk", stored) as appended:
            await drive([imports[:1]], append, 60)  # prepares statements and plans
            rate = await drive([imports[1:]], append, 60)
            appended((rate.items + 1) * _BULK_EVENTS)
        return rate * _BULK_EVENTS

    return measure


async def attached(bench: Benchmark) -> list[Figure]:
    """Compare appends while workers and a subscriber run, each in its own process, with appends alone.

    Each run measures 1, 16 and 64 callers with workers, then all of them without.
    """
    callers = (1, 16) if bench.scale.quick else (1, 16, 64)
    sides = {number: bench.appends(number) for number in callers}
    with_workers: dict[int, list[float]] = {number: [] for number in callers}
    alone: dict[int, list[float]] = {number: [] for number in callers}
    settings = bench.workspace.settings

    async def caught_up() -> None:
        await wait_for(bench.store, await horizon(bench.store.connections.auditor), timeout=_CATCH_UP_SECONDS)

    for run in range(bench.scale.runs):
        bench.report(f"with workers attached, run {run + 1} of {bench.scale.runs}")
        async with workers(settings) as worker, process(settings, "follow"):
            for number, side in sides.items():
                await worker.wait_for(caught_up())
                with_workers[number].append(await bench.mean_of_slices(side, f"{run}/{number}"))
        for number, side in sides.items():
            alone[number].append(await bench.mean_of_slices(side, f"{run}/{number}"))
    return [
        Figure(
            "attached", f"{number} callers append with workers and a subscriber attached / without", "events/s",
            with_workers[number], alone[number], Target(0.9),
        )
        for number in callers
    ]  # fmt: skip


async def gate(bench: Benchmark) -> list[Figure]:
    """Compare appends with the same in a schema without the gate: the cost of the order of the log."""
    figures = []
    with bench.workspace.migrated("gateless") as settings:
        async with bench.workspace.connections(1, settings.db_schema) as (connection,):
            await connection.execute(query("tools.benchmark", "without_gate"))
        async with EventStore(settings) as without:
            if not await _holds_gates(bench, bench.store) or await _holds_gates(bench, without):
                raise ServerError("appends do not take the gate in register_append(), so it cannot be left out")
            for callers in (1, 16):
                words = f"{callers} concurrent appends" if callers > 1 else "appends"
                sides = [bench.appends(callers), bench.appends(callers, without)]
                ours, other = await bench.in_turn(f"the gate, {callers} callers", sides)
                what = f"{words} / the same without the gate"
                figures.append(Figure("gate", what, "events/s", ours, other, Target(0.9)))
    return figures


async def _holds_gates(bench: Benchmark, store: EventStore) -> bool:
    """Return whether an append is seen holding the gate."""
    side = bench.appends(16, store)

    async def append_on() -> None:
        while True:
            await side("gate/look")

    await side("gate/begin")  # until it is connected
    appending = asyncio.create_task(append_on())
    try:
        async with bench.workspace.connections(1, store.settings.db_schema) as (connection,):
            for _ in range(_GATE_LOOKS):
                row = await (await connection.execute(query("tools.benchmark", "gates_held"))).fetchone()
                if row is not None and row[0]:
                    return True
        return False
    finally:
        await cancel_and_wait([appending])


async def growing(bench: Benchmark) -> list[Figure]:
    """Compare an append in a long log and to a long conversation with one in a short log and to a new one."""
    return [await _long_log(bench), await _long_conversation(bench)]


async def _long_log(bench: Benchmark) -> Figure:
    scale, workspace = bench.scale, bench.workspace
    with workspace.migrated("long") as long_settings, workspace.migrated("short") as short_settings:
        async with EventStore(long_settings) as long, EventStore(short_settings) as short:
            await fill(short, "short", scale.short_log)
            await fill(long, "long", scale.events, report=bench.report)
            for settings in (long_settings, short_settings):
                await workspace.vacuum_and_checkpoint(settings.db_schema)
            ours, other = await bench.in_turn("the long log", [_append_cost(bench, long), _append_cost(bench, short)])
    what = f"an append at {scale.events:,} events / one at {scale.short_log:,}"
    return Figure("growing", what, "s", ours, other, Target(1.1, at_least=False))


async def _long_conversation(bench: Benchmark) -> Figure:
    length = bench.scale.long_conversation
    bench.report(f"filling a conversation: {length:,} events")
    long = await fill_conversation(bench.store, "long", length)
    await bench.workspace.vacuum_and_checkpoint(bench.workspace.schema)
    sides = [_append_cost(bench, bench.store, lambda: long), _append_cost(bench, bench.store, uuid4)]
    ours, other = await bench.in_turn("the long conversation", sides)
    what = f"an append to a conversation of {length:,} events / one to a new conversation"
    return Figure("growing", what, "s", ours, other, Target(1.1, at_least=False))


def _append_cost(bench: Benchmark, store: EventStore, conversation: Callable[[], UUID] | None = None) -> Side:
    """Return a side that measures the mean seconds of an append by one caller.

    Args:
        conversation: returns the conversation for all messages of a measurement; if left out, each keeps its own.
    """
    number = bench.scale.rounds * 5

    async def measure(seed: str) -> float:
        (stream,) = streams(seed, 1)
        one = conversation() if conversation is not None else None
        plan = [
            (one or message.conversation_id, [message.event()]) for message in islice(stream, number + _WARM_UP_APPENDS)
        ]
        for conversation_id, events in plan[:_WARM_UP_APPENDS]:
            await store.append(conversation_id, events)
        async with proven("an append's cost", bench.events_of(store)) as appended:
            with no_collection():
                begin = perf_counter()
                for conversation_id, events in plan[_WARM_UP_APPENDS:]:
                    await store.append(conversation_id, events)
                seconds = perf_counter() - begin
            appended(number)
        return seconds / number

    return measure


_FURTHER_INDEXES = (
    "(conversation_id)", "(timestamp DESC)", "(conversation_id, timestamp)", "(event_type)", "(actor)",
    "(conversation_id, event_type)", "(actor, timestamp)",
)  # fmt: skip
"""Indexes of the bare table beside its primary key, most useful first; it gets as many as the log has."""


async def size(bench: Benchmark) -> list[Figure]:
    """Compare the bytes on disk of the log with those of a bare table of six columns with as many indexes.

    Both hold the same rows; they are measured after each of several imports.
    """
    each = bench.scale.rows // bench.scale.runs
    ours: list[float] = []
    other: list[float] = []
    with bench.workspace.migrated("size") as settings:
        async with EventStore(settings) as store, bench.workspace.connections(1, settings.db_schema) as (connection,):
            indexes = await _number(connection, "SELECT count(*) FROM pg_index i WHERE i.indrelid = 'events'::regclass")
            await connection.execute(query("tools.benchmark", "seed_table"))
            for columns in _FURTHER_INDEXES[: indexes - 1]:
                await connection.execute(sql.SQL("CREATE INDEX ON seed_events " + columns))
            for run in range(bench.scale.runs):
                bench.report(f"bytes on disk, run {run + 1} of {bench.scale.runs}")
                last = await _number(connection, "SELECT coalesce(max(e.position), 0) FROM events e")
                await fill(store, f"size/{run}", each)
                copied = await connection.execute(query("tools.benchmark", "seed_copy"), (last,))
                if copied.rowcount != each:
                    raise ServerError(f"{each:,} events were appended, {copied.rowcount:,} copied: the figure is void")
                await connection.execute("VACUUM (ANALYZE) events, seed_events")
                for values, table in ((ours, "events"), (other, "seed_events")):
                    total = await _number(connection, "SELECT pg_total_relation_size(%s::regclass)", table)
                    values.append(total / (each * (run + 1)))
    what = f"an event in the log / in a bare table of six columns, both with {indexes} indexes"
    remark = f"{each * bench.scale.runs:,} rows at the end"
    return [Figure("size", what, "bytes", ours, other, Target(1.25, at_least=False), remark)]


async def _number(connection: Connection, text: str, *parameters: object) -> int:
    row = await (await connection.execute(text.encode(), parameters)).fetchone()
    assert row is not None
    return int(row[0])
