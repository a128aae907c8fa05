"""From an append to a sleeping subscriber in another process, against a bare LISTEN/NOTIFY round between processes.

Everything is at rest before each round, so the subscriber sleeps and has to be woken. Times are taken on a clock that
all processes of a machine share. The append is committed at the latest when the call returns to the writer, so the time
counts from there; a round of NOTIFY counts from its call, because the listener often hears of it before it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from statistics import median
from time import monotonic_ns

from agent_manager.bench.children import Child, listening
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.listener import CHANNEL
from agent_manager.bench.messages import conversation
from agent_manager.bench.work import Bench

_TARGET = Target(1.5, at_least=False)
_REST_SECONDS = 0.03
_NANO = 1e-9


async def waking(bench: Bench) -> list[Figure]:
    """From the return of the call, and from its start; the sides take turns in every round."""
    rounds = bench.scale.rounds * bench.scale.slices
    messages = iter(conversation("waking", bench.scale.runs * rounds + 1))
    ours, bare = _Times(), _Times()
    async with (
        listening(bench.place.settings, "subscribe") as subscriber,
        listening(bench.place.settings, "listen") as listener,
        bench.connection() as connection,
    ):

        async def append() -> None:
            message = next(messages)
            await bench.store.append(message.conversation_id, [message.event()])

        async def notify() -> None:
            await connection.execute(f"NOTIFY {CHANNEL}".encode())

        await _round(append, subscriber)  # connections are made, statements prepared
        await _round(notify, listener)
        for run in range(bench.scale.runs):
            bench.tell(f"waking, run {run + 1} of {bench.scale.runs}")
            times = [(await _round(append, subscriber), await _round(notify, listener)) for _ in range(rounds)]
            ours.add(mine for mine, _ in times)
            bare.add(theirs for _, theirs in times)
    return [
        Figure(
            "waking", "from commit to the subscriber / a round from NOTIFY to the listener", "s",
            ours.from_return, bare.from_start, _TARGET,
        ),
        Figure("waking", "the same, both from the start of the call", "s", ours.from_start, bare.from_start),
        Figure(
            "waking", "the same, both from the return of the call", "s", ours.from_return, bare.from_return,
            remark="a listener may hear before NOTIFY has returned: then the divisor is next to nothing, or below",
        ),
    ]  # fmt: skip


class _Times:
    """Medians of the rounds of each run, in seconds."""

    def __init__(self) -> None:
        self.from_start: list[float] = []
        self.from_return: list[float] = []

    def add(self, rounds: Iterable[tuple[float, float]]) -> None:
        """Those of a run."""
        started, returned = zip(*rounds, strict=True)
        self.from_start.append(median(started))
        self.from_return.append(median(returned))


async def _round(act: Callable[[], Awaitable[None]], child: Child) -> tuple[float, float]:
    """Seconds from the start of the call, and from its return, until the child has heard of it."""
    await asyncio.sleep(_REST_SECONDS)
    begin = monotonic_ns()
    await act()
    returned = monotonic_ns()
    heard = int(await child.line())
    return (heard - begin) * _NANO, (heard - returned) * _NANO
