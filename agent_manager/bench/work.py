"""What a comparison works with: the place, the scale, open stores, and running sides in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import mean
from typing import Any, Self
from uuid import UUID

from agent_manager.bench.messages import Message
from agent_manager.bench.place import Place
from agent_manager.bench.rates import Throughput, driven
from agent_manager.bench.scale import Scale
from eventstore import EventStore, NewEvent, Settings
from eventstore.database.connection import Connection
from eventstore.database.queries import query

Side = Callable[[str], Awaitable[float]]
"""Measures once, with the messages of a seed."""


class Bench:
    """One run of the benchmark.

    Attributes:
        store: an open store in the place.
        tell: called with a few words on what is measured now.
        skipped: what cannot be measured here, and why.
        failed: what should have been measured and was not, and why.
    """

    def __init__(self, place: Place, scale: Scale) -> None:
        self.place = place
        self.scale = scale
        self.tell: Callable[[str], None] = lambda _: None
        self.skipped: list[str] = []
        self.failed: list[str] = []
        self._stack = AsyncExitStack()
        self._seeds = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.store = await stack.enter_async_context(EventStore(self.place.settings))
            async with self.connection() as connection:
                await connection.execute(query("agent_manager.bench", "bare_tables"))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A bare connection of the driver's."""
        async with self.place.connections(1) as (connection,):
            yield connection

    async def in_turn(
        self, what: str, sides: Sequence[Side], *, runs: int | None = None, slices: int | None = None
    ) -> list[list[float]]:
        """Runs the sides one after the other, again and again, each time on messages that they have not had before.

        Args:
            what: what is measured, in a few words.
            sides: that of the store first.
            runs, slices: those of the scale if left out.

        Returns:
            For each side what it measured, a value a run: the mean of its slices.
        """
        self._seeds += 1
        measured: list[list[float]] = [[] for _ in sides]
        runs, slices = runs or self.scale.runs, slices or self.scale.slices
        for run in range(runs):
            self.tell(f"{what}, run {run + 1} of {runs}")
            parts = [[await side(f"{self._seeds}/{run}/{part}") for side in sides] for part in range(slices)]
            for values, of_side in zip(measured, zip(*parts, strict=True), strict=True):
                values.append(mean(of_side))
        return measured

    def appends(self, callers: int, store: EventStore | None = None) -> Side:
        """The side that appends single messages to a store with so many callers."""
        return self.rate(Throughput(callers, prepared, driven(appender(store or self.store))))

    def skip(self, words: str) -> None:
        """Notes what cannot be measured here, and why."""
        if words not in self.skipped:
            self.skipped.append(words)

    def fail(self, words: str) -> None:
        """Notes what should have been measured and was not, and why."""
        self.failed.append(words)

    def rate(self, throughput: Throughput[Any]) -> Side:
        """A side that measures a throughput."""
        return lambda seed: throughput.measure(seed, self.scale.seconds / self.scale.slices)


Prepared = tuple[UUID, list[NewEvent]]


def prepared(message: Message) -> Prepared:
    """A message as it is given to the store."""
    return message.conversation_id, [message.event()]


def appender(store: EventStore) -> Callable[[int, Prepared], Awaitable[None]]:
    """Appends such to a store."""

    async def append(_: int, given: Prepared) -> None:
        await store.append(given[0], given[1])

    return append


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[EventStore]:
    """A further store."""
    async with EventStore(settings) as store:
        yield store
