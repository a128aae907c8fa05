"""Adapters of agent frameworks against the frameworks' own database stores: the same work on the same server."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from eventstore.errors import ServerError
from tools.benchmark.measurement import Benchmark, Figure, Target, Throughput
from tools.benchmark.peers import PEERS, PeerMissing, appends_of, opened_peer

_PROVED = 50
"""Tasks that each side reads back after it was measured."""


async def a2a_sdk(bench: Benchmark) -> list[Figure]:
    """Compare saves of A2A tasks, each with a further message, with those of a2a-sdk's own store."""
    [spec] = [spec for spec in PEERS if spec.name == "a2a-sdk"]
    figures = []
    try:
        for tasks in (1, 16):
            async with opened_peer(bench, spec, tasks) as theirs:
                ours: Any = spec.make()
                ours.use(_task_store(bench))
                stored = bench.events_of(bench.store, "event_type = 'message.added'")
                sides = [
                    bench.rate(Throughput(tasks, ours.prepare, ours.drive, stored, ours.begin)),
                    appends_of(bench, spec, theirs, tasks),
                ]
                own, other = await bench.in_turn(f"saves of {tasks} tasks", sides)
                await _prove([ours, theirs])
            what = f"saves of {tasks} task{'s' if tasks > 1 else ''} / {spec.call}"
            figures.append(Figure("a2a-sdk", what, "saves/s", own, other, Target(5 if tasks > 1 else 1)))
    except PeerMissing as missing:
        bench.skip(f"a2a-sdk: {missing}")
    return figures


def _task_store(bench: Benchmark) -> Any:
    from agent_manager.adapters.a2a_sdk import EventStoreTaskStore

    return EventStoreTaskStore(bench.store)


async def _prove(sides: Sequence[Any]) -> None:
    """Make sure that each side returns the tasks that it has saved."""
    for side in sides:
        for task in islice(reversed(side.saved), _PROVED):
            if await side.read(task) != task:
                raise ServerError(f"{type(side).__name__} does not return the task {task.id} as it was saved")
