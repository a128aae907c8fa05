"""From an append to the visible row: at rest, in a stream, and while as many events come as can be appended.

A worker runs in a process of its own. Its rows are looked for over a bare connection, again and again: that costs the
machine something, on both sides of the ratio at rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import psycopg

from agent_manager.bench.children import workers
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.listener import CHANNEL
from agent_manager.bench.messages import conversation, streams
from agent_manager.bench.rates import Throughput, driven, no_collection
from agent_manager.bench.work import Bench, appender, prepared
from eventstore.database.queries import query
from projections import named, wait_for

_AT_REST, _IN_STREAM = Target(3, at_least=False), Target(1, at_least=False)
_ALLOWED_SECONDS = 0.025
_APPENDS_PER_SECOND, _WRITERS = 1000, 200
_REST_SECONDS = 0.05
_LOOK_SECONDS, _LOOK_IN_STREAM_SECONDS = 0.0002, 0.004
_READ = ("conversations", "messages", "tasks")
_CALLERS = 64
_IS_VISIBLE = query("agent_manager.bench", "is_visible")
_APPLIED = query("agent_manager.bench", "applied")

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def visible(bench: Bench) -> list[Figure]:
    """Each run measures at rest, then the thin stream, then the dense one."""
    rest: list[tuple[float, float]] = []
    stream: list[float] = []
    dense: list[tuple[float, float]] = []
    appends = Throughput(_CALLERS, prepared, driven(appender(bench.store)))
    async with workers(bench.place.settings), bench.connection() as looking, bench.connection() as notifying:
        for run in range(bench.scale.runs):
            bench.tell(f"visible rows, run {run + 1} of {bench.scale.runs}")
            await _caught_up(bench)
            rest.append(await _at_rest(bench, looking, notifying, f"rest/{run}"))
            stream.append(await _in_stream(bench, looking, f"stream/{run}"))
            dense.append(await _dense(bench, appends, f"dense/{run}"))
    ours, bare = zip(*rest, strict=True)
    applied, appended = zip(*dense, strict=True)
    rate = f"{_APPENDS_PER_SECOND:,} appends a second"
    return [
        Figure(
            "visible", "at rest, from append to visible message / a round from NOTIFY to the listener", "s",
            ours, bare, _AT_REST,
        ),
        Figure(
            "visible", f"{rate}, 99 of 100 are visible within / {_ALLOWED_SECONDS * 1000:.0f} ms", "s",
            stream, [_ALLOWED_SECONDS] * len(stream), _IN_STREAM,
        ),
        Figure(
            "visible", f"{_CALLERS} callers append: rows until the last is visible / appends", "events/s",
            applied, appended, remark="conversations, messages and tasks; search and statistics come later",
        ),
    ]  # fmt: skip


async def _at_rest(bench: Bench, looking: Connection, notifying: Connection, seed: str) -> tuple[float, float]:
    """Seconds from the return of an append until its row is there, and those of a round of NOTIFY."""
    ours, bare = [], []
    async with _hearing(bench) as heard:
        for message in conversation(seed, bench.scale.rounds):
            await asyncio.sleep(_REST_SECONDS)
            heard.clear()
            began = perf_counter()
            await notifying.execute(f"NOTIFY {CHANNEL}".encode())
            await heard.wait()
            bare.append(perf_counter() - began)
            await asyncio.sleep(_REST_SECONDS)
            event = message.event()
            await bench.store.append(message.conversation_id, [event])
            began = perf_counter()
            key = {"tenant": bench.store.tenant, "conversation_id": message.conversation_id, "id": event.id}
            while True:
                if await (await looking.execute(_IS_VISIBLE, key)).fetchone():
                    break
                await asyncio.sleep(_LOOK_SECONDS)
            ours.append(perf_counter() - began)
    return median(ours), median(bare)


@asynccontextmanager
async def _hearing(bench: Bench) -> AsyncIterator[asyncio.Event]:
    """Set when the channel is notified."""
    heard = asyncio.Event()

    async def listen(connection: Connection) -> None:
        async for _ in connection.notifies():
            heard.set()

    async with bench.connection() as listening:
        await listening.execute(f"LISTEN {CHANNEL}".encode())
        task = asyncio.create_task(listen(listening))
        try:
            yield heard
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _in_stream(bench: Bench, looking: Connection, seed: str) -> float:
    """Seconds within which 99 of 100 appends are visible, when they come at that rate."""
    returned: list[tuple[int, float]] = []
    applied: list[tuple[int, float]] = []
    seconds = bench.scale.seconds

    async def append(message: Any) -> None:
        result = await bench.store.append(message.conversation_id, [message.event()])
        returned.append((result.position, perf_counter()))

    async def look() -> None:
        row = await (await looking.execute(_APPLIED, {"projections": list(_READ)})).fetchone()
        assert row is not None
        applied.append((row[0], perf_counter()))

    async def look_again_and_again() -> None:
        while True:
            await look()
            await asyncio.sleep(_LOOK_IN_STREAM_SECONDS)

    each = [islice(stream, int(seconds * _APPENDS_PER_SECOND / _WRITERS) + 1) for stream in streams(seed, _WRITERS)]
    messages = [message for some in zip(*each, strict=True) for message in some]
    looks = asyncio.create_task(look_again_and_again())
    try:
        with no_collection():
            async with asyncio.TaskGroup() as group:
                began = perf_counter()
                for number, message in enumerate(messages[: int(seconds * _APPENDS_PER_SECOND)]):
                    await asyncio.sleep(max(began + number / _APPENDS_PER_SECOND - perf_counter(), 0))
                    group.create_task(append(message))
            await _caught_up(bench, _READ)
    finally:
        looks.cancel()
        with suppress(asyncio.CancelledError):
            await looks
    await look()
    return quantiles(_delays(sorted(returned), applied), n=100)[98]


def _delays(returned: list[tuple[int, float]], applied: list[tuple[int, float]]) -> list[float]:
    """From the return of each append until it was first seen that its position is applied."""
    delays = []
    looks = iter(applied)
    position, at = next(looks)
    for appended, since in returned:
        while position < appended:
            position, at = next(looks)
        delays.append(max(at - since, 0.0))
    return delays


async def _dense(bench: Bench, appends: Throughput[Any], seed: str) -> tuple[float, float]:
    """Events a second from the first append until the last row is visible, and until the last append."""
    rate = await appends.measure(seed, bench.scale.seconds)
    ended = perf_counter()
    await _caught_up(bench, _READ)
    return rate * bench.scale.seconds / (bench.scale.seconds + perf_counter() - ended), rate


async def _caught_up(bench: Bench, names: tuple[str, ...] = ()) -> None:
    [(position,)] = await bench.store.parts.auditor.fetch("SELECT log_horizon()")
    await wait_for(bench.store, position, projections=named(names), timeout=300)
