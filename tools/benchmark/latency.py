"""Latency from an append to a subscriber in another process, and to the visible row of a read table.

Workers, subscribers and listeners run in processes of their own. Times between processes are taken on the monotonic
clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice
from statistics import median, quantiles
from time import monotonic_ns, perf_counter
from typing import Any

from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from projections import select_projections, wait_for
from tools.benchmark.measurement import (
    Benchmark,
    Figure,
    Target,
    Throughput,
    appender,
    driver,
    no_collection,
    prepare_append,
)
from tools.benchmark.messages import conversation, streams
from tools.benchmark.processes import CHANNEL, READ_TABLES, ChildProcess, process, workers

_QUIET_SECONDS = 0.03
"""Pause before each round, so that the subscriber waits and has to be woken."""
_QUIET_WORKER_SECONDS = 0.05
_ALLOWED_SECONDS = 0.025
_APPENDS_PER_SECOND, _STREAM_CONVERSATIONS = 1000, 200
_POLL_SECONDS, _POLL_IN_STREAM_SECONDS = 0.0002, 0.004
_DENSE_CALLERS = 64


async def notification(bench: Benchmark) -> list[Figure]:
    """Compare the time from an append to a waiting subscriber with that of a plain LISTEN/NOTIFY round.

    The append is committed at the latest when its call returns, so its time counts from there; a round of NOTIFY counts
    from its call, because the listener often hears of it before the call returns.
    """
    rounds = bench.scale.rounds * bench.scale.slices
    messages = iter(conversation("notification", bench.scale.runs * rounds + 1))
    runs: list[list[list[float]]] = []
    settings = bench.workspace.settings
    async with (
        process(settings, "subscribe") as subscriber,
        process(settings, "listen") as listener,
        bench.connection() as connection,
    ):

        async def append() -> None:
            message = next(messages)
            await bench.store.append(message.conversation_id, [message.event()])

        async def notify() -> None:
            await connection.execute(f"NOTIFY {CHANNEL}".encode())

        async def both() -> tuple[float, float, float, float]:
            return (*await _round(append, subscriber), *await _round(notify, listener))

        await both()  # opens connections, prepares statements
        for run in range(bench.scale.runs):
            bench.report(f"notification, run {run + 1} of {bench.scale.runs}")
            times = [await both() for _ in range(rounds)]
            runs.append([median(some) for some in zip(*times, strict=True)])
    started, returned, notify_started, notify_returned = zip(*runs, strict=True)
    return [
        Figure(
            "notification", "from commit to the subscriber / a round from NOTIFY to the listener", "s",
            returned, notify_started, Target(1.5, at_least=False),
        ),
        Figure("notification", "the same, both from the start of the call", "s", started, notify_started),
        Figure(
            "notification", "the same, both from the return of the call", "s", returned, notify_returned,
            remark="a listener may hear before NOTIFY has returned: then the divisor is next to nothing, or below",
        ),
    ]  # fmt: skip


async def _round(act: Callable[[], Awaitable[None]], child: ChildProcess) -> tuple[float, float]:
    """Return the seconds from the start of a call, and from its return, until the child has heard of it."""
    await asyncio.sleep(_QUIET_SECONDS)
    begin = monotonic_ns()
    await act()
    returned = monotonic_ns()
    heard = int(await child.line())
    return (heard - begin) * 1e-9, (heard - returned) * 1e-9


async def visible(bench: Benchmark) -> list[Figure]:
    """Measure the time from an append to its visible row: at rest, in a stream, and under the densest load.

    A worker runs in a process of its own. Rows are polled over a plain connection, which costs the machine something on
    both sides of the ratio at rest.
    """
    rest: list[tuple[float, float]] = []
    stream: list[float] = []
    dense: list[tuple[float, float]] = []
    appends = Throughput(_DENSE_CALLERS, prepare_append, driver(appender(bench.store)), bench.events_of(bench.store))
    async with workers(bench.workspace.settings), bench.connection() as polling, bench.connection() as notifying:
        for run in range(bench.scale.runs):
            bench.report(f"visible rows, run {run + 1} of {bench.scale.runs}")
            await _catch_up(bench)
            rest.append(await _at_rest(bench, polling, notifying, f"rest/{run}"))
            stream.append(await _in_stream(bench, polling, f"stream/{run}"))
            dense.append(await _dense(bench, appends, f"dense/{run}"))
    ours, bare = zip(*rest, strict=True)
    applied, appended = zip(*dense, strict=True)
    rate = f"{_APPENDS_PER_SECOND:,} appends a second"
    return [
        Figure(
            "visible", "at rest, from append to visible message / a round from NOTIFY to the listener", "s",
            ours, bare, Target(3, at_least=False),
        ),
        Figure(
            "visible", f"{rate}, 99 of 100 are visible within / {_ALLOWED_SECONDS * 1000:.0f} ms", "s",
            stream, [_ALLOWED_SECONDS] * len(stream), Target(1, at_least=False),
        ),
        Figure(
            "visible", f"{_DENSE_CALLERS} callers append: rows until the last is visible / appends", "events/s",
            applied, appended, remark="conversations, messages and tasks; search and statistics come later",
        ),
    ]  # fmt: skip


async def _at_rest(bench: Benchmark, polling: Connection, notifying: Connection, seed: str) -> tuple[float, float]:
    """Return the seconds from an append's return until its row is visible, and those of a NOTIFY round."""
    is_visible = query("tools.benchmark", "is_visible")
    ours, bare = [], []
    async with _listener(bench) as heard:
        for message in conversation(seed, bench.scale.rounds):
            await asyncio.sleep(_QUIET_WORKER_SECONDS)
            heard.clear()
            began = perf_counter()
            await notifying.execute(f"NOTIFY {CHANNEL}".encode())
            await heard.wait()
            bare.append(perf_counter() - began)
            await asyncio.sleep(_QUIET_WORKER_SECONDS)
            event = message.event()
            await bench.store.append(message.conversation_id, [event])
            began = perf_counter()
            key = {"tenant": bench.store.tenant, "conversation_id": message.conversation_id, "id": event.id}
            while True:
                if await (await polling.execute(is_visible, key)).fetchone():
                    break
                await asyncio.sleep(_POLL_SECONDS)
            ours.append(perf_counter() - began)
    return median(ours), median(bare)


@asynccontextmanager
async def _listener(bench: Benchmark) -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set when the channel is notified."""
    heard = asyncio.Event()

    async def listen(connection: Connection) -> None:
        async for _ in connection.notifies():
            heard.set()

    async with bench.connection() as connection:
        await connection.execute(f"LISTEN {CHANNEL}".encode())
        task = asyncio.create_task(listen(connection))
        try:
            yield heard
        finally:
            await cancel_and_wait([task])


async def _in_stream(bench: Benchmark, polling: Connection, seed: str) -> float:
    """Return the seconds within which 99 of 100 appends are visible, at a fixed rate of appends."""
    returned: list[tuple[int, float]] = []
    applied: list[tuple[int, float]] = []
    number = int(bench.scale.seconds * _APPENDS_PER_SECOND)

    async def append(message: Any) -> None:
        result = await bench.store.append(message.conversation_id, [message.event()])
        returned.append((result.position, perf_counter()))

    async def poll() -> None:
        cursor = await polling.execute(query("tools.benchmark", "applied"), {"projections": list(READ_TABLES)})
        row = await cursor.fetchone()
        assert row is not None
        applied.append((row[0], perf_counter()))

    async def poll_repeatedly() -> None:
        while True:
            await poll()
            await asyncio.sleep(_POLL_IN_STREAM_SECONDS)

    sources = [islice(stream, number // _STREAM_CONVERSATIONS + 1) for stream in streams(seed, _STREAM_CONVERSATIONS)]
    messages = [message for some in zip(*sources, strict=True) for message in some]
    polls = asyncio.create_task(poll_repeatedly())
    try:
        with no_collection():
            async with asyncio.TaskGroup() as group:
                began = perf_counter()
                for index, message in enumerate(messages[:number]):
                    await asyncio.sleep(max(began + index / _APPENDS_PER_SECOND - perf_counter(), 0))
                    group.create_task(append(message))
            await _catch_up(bench, READ_TABLES)
    finally:
        await cancel_and_wait([polls])
    await poll()
    return quantiles(_delays(sorted(returned), applied), n=100)[98]


def _delays(returned: list[tuple[int, float]], applied: list[tuple[int, float]]) -> list[float]:
    """Return the seconds from each append's return until a poll first saw its position applied."""
    delays = []
    polls = iter(applied)
    position, at = next(polls)
    for appended, since in returned:
        while position < appended:
            position, at = next(polls)
        delays.append(max(at - since, 0.0))
    return delays


async def _dense(bench: Benchmark, appends: Throughput[Any], seed: str) -> tuple[float, float]:
    """Return events per second from the first append until the last row is visible, and until the last append."""
    rate = await appends.measure(seed, bench.scale.seconds)
    ended = perf_counter()
    await _catch_up(bench, READ_TABLES)
    return rate * bench.scale.seconds / (bench.scale.seconds + perf_counter() - ended), rate


async def _catch_up(bench: Benchmark, names: tuple[str, ...] = ()) -> None:
    [(position,)] = await bench.store.connections.auditor.fetch("SELECT log_horizon()")
    await wait_for(bench.store, position, projections=select_projections(names), timeout=300)
