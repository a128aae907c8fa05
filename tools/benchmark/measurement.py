"""Measuring: two or more sides in turn, the throughput of concurrent callers, and the ratio that results."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from statistics import mean, median
from time import perf_counter
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from eventstore import EventStore, NewEvent
from eventstore.concurrency import gather_or_raise
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import ServerError
from tools.benchmark.messages import Message, streams
from tools.benchmark.workspace import Workspace

T = TypeVar("T")

MIN_RUNS = 5
_WARM_UP_EACH, _WARM_UP_SECONDS = 40, 0.5
_MARGIN = 1.7
"""The factor between the appends of the last run and those that are prepared for the next."""


@dataclass(frozen=True)
class Scale:
    """The number and length of the runs, and the amount of data.

    Attributes:
        runs: how many ratios a figure is the median of.
        seconds: duration of a throughput measurement of each side in a run.
        slices: parts of a run in which the sides take turns, so that other load on the machine affects all of them.
        callers: numbers of concurrent callers.
        events: length of the long log.
        long_conversation: length of the long conversation.
        rounds: wake-ups or reads of a slice.
        rows: length of the log whose reading and size are measured.
    """

    runs: int = MIN_RUNS
    seconds: float = 2.0
    slices: int = 4
    callers: tuple[int, ...] = (1, 16, 64, 256)
    events: int = 1_000_000
    short_log: int = 10_000
    long_conversation: int = 100_000
    rounds: int = 50
    rows: int = 50_000
    quick: bool = False


TRIAL = Scale(
    runs=1, seconds=0.1, slices=1, callers=(1, 16, 20), events=1_000, short_log=200, long_conversation=1_000,
    rounds=5, rows=1_000, quick=True,
)  # fmt: skip
"""The scale of a trial: everything runs; its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a ratio should reach."""

    value: float
    at_least: bool = True

    def reached(self, ratio: float) -> bool:
        """Return whether a ratio reaches the bound."""
        return ratio >= self.value if self.at_least else ratio <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:g}"


@dataclass(frozen=True)
class Figure:
    """The result of a comparison: the ratios of two sides that ran in turn.

    Attributes:
        comparison: name of the comparison.
        what: the two sides in words, the store's first.
        unit: unit of the values.
        ours, other: the values of the store and of the other side, one for each run.
        target: bound for the median of the ratios, if there is one.
        remark: context that a reader of the figure needs.
    """

    comparison: str
    what: str
    unit: str
    ours: Sequence[float]
    other: Sequence[float]
    target: Target | None = None
    remark: str = ""
    ratios: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        ratios = tuple(ours / other for ours, other in zip(self.ours, self.other, strict=True))
        object.__setattr__(self, "ratios", ratios)

    @property
    def ratio(self) -> float:
        """The median of the ratios of the runs."""
        return median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """True if the target is reached; None without a target."""
        return None if self.target is None else self.target.reached(self.ratio)

    def as_json(self) -> dict[str, Any]:
        """Return the figure as plain values."""
        return {
            "comparison": self.comparison,
            "what": self.what,
            "ratio": self.ratio,
            "lowest": min(self.ratios),
            "highest": max(self.ratios),
            "target": None if self.target is None else str(self.target),
            "reached": self.reached,
            "unit": self.unit,
            "ours": list(self.ours),
            "other": list(self.other),
            "remark": self.remark,
        }


class Rate(float):
    """Items per second, and how many they were."""

    def __new__(cls, items: int, seconds: float) -> Self:
        rate = super().__new__(cls, items / seconds)
        rate.items = items
        return rate

    items: int


Stored = Callable[[], Awaitable[int]]
"""Returns how many messages a side has stored: the proof of its work."""


@asynccontextmanager
async def proven(what: str, stored: Stored) -> AsyncIterator[Callable[[int], None]]:
    """Yield a function that takes the number of messages that were appended in the block.

    Raises:
        ServerError: as many are not stored, at the end of the block.
    """
    appended = 0

    def add(number: int) -> None:
        nonlocal appended
        appended += number

    before = await stored()
    yield add
    if (found := await stored() - before) != appended:
        raise ServerError(f"{what}: {appended:,} messages were appended and {found:,} are stored: the figure is void")


class Throughput(Generic[T]):
    """A side of a throughput comparison: appends per second by a number of concurrent callers.

    Args:
        prepare: turns a message into what is appended, before the clock starts.
        run: appends for a number of seconds, a list for each caller, and returns the rate of appends.
        stored: counts what is stored, before and after each run.
        begin: receives the messages of a run before the clock starts.
    """

    def __init__(
        self,
        callers: int,
        prepare: Callable[[Message], T],
        run: Callable[[Sequence[Sequence[T]], float], Awaitable[Rate]],
        stored: Stored,
        begin: Callable[[Sequence[Message]], Awaitable[None]] | None = None,
    ) -> None:
        self._callers = callers
        self._prepare = prepare
        self._run = run
        self._stored = stored
        self._begin = begin
        self._rate = 0.0

    async def measure(self, seed: str, seconds: float) -> float:
        """Return appends per second. The same seed gives every side the same messages."""
        if not self._rate:
            # The warm-up opens connections, prepares statements, fills caches, and shows how much to prepare.
            warm_up = await self._plan(f"{seed}/warm-up", _WARM_UP_EACH)
            self._rate = await self._proven_run(warm_up, min(seconds, _WARM_UP_SECONDS))
        each = int(self._rate * seconds * _MARGIN / self._callers) + _WARM_UP_EACH
        self._rate = await self._proven_run(await self._plan(seed, each), seconds)
        return self._rate

    async def _proven_run(self, plan: Sequence[Sequence[T]], seconds: float) -> float:
        async with proven(f"{self._callers} callers", self._stored) as appended:
            rate = await self._run(plan, seconds)
            appended(rate.items)
        return float(rate)

    async def _plan(self, seed: str, each: int) -> list[list[T]]:
        messages = [list(islice(stream, each)) for stream in streams(seed, self._callers)]
        if self._begin is not None:
            await self._begin([message for some in messages for message in some])
        return [[self._prepare(message) for message in some] for some in messages]


def driver(act: Callable[[int, T], Awaitable[None]]) -> Callable[[Sequence[Sequence[T]], float], Awaitable[Rate]]:
    """Return a run of :func:`drive` that does this with each item."""
    return lambda plan, seconds: drive(plan, act, seconds)


async def drive(plan: Sequence[Sequence[T]], act: Callable[[int, T], Awaitable[None]], seconds: float) -> Rate:
    """Run a caller for each list, one item after the other, until the time or one of the lists is used up.

    Returns:
        The rate of items until the last caller has finished.
    """
    done = 0
    with no_collection():
        begin = perf_counter()
        deadline = begin + seconds

        async def call(caller: int, items: Sequence[T]) -> None:
            nonlocal done, deadline
            for item in items:
                await act(caller, item)
                done += 1
                if perf_counter() >= deadline:
                    return
            deadline = 0.0  # all callers stop: fewer concurrent callers would measure something else

        await gather_or_raise(call(caller, items) for caller, items in enumerate(plan))
        return Rate(done, perf_counter() - begin)


async def drive_threads(plan: Sequence[Sequence[T]], act: Callable[[int, T], None], seconds: float) -> Rate:
    """Do the same as :func:`drive`, with a thread for each caller."""
    deadline = 0.0

    def call(caller: int, items: Sequence[T]) -> int:
        nonlocal deadline
        for done, item in enumerate(items, 1):
            act(caller, item)
            if perf_counter() >= deadline:
                return done
        deadline = 0.0
        return len(items)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(plan)) as threads, no_collection():
        begin = perf_counter()
        deadline = begin + seconds
        calls = [loop.run_in_executor(threads, call, caller, items) for caller, items in enumerate(plan)]
        done = sum(await asyncio.gather(*calls))
        return Rate(done, perf_counter() - begin)


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep prepared objects out of garbage collections, which would slow one side down."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


Side = Callable[[str], Awaitable[float]]
"""A measurement of one side, with the messages of a seed."""
PreparedAppend = tuple[UUID, list[NewEvent]]


def prepare_append(message: Message) -> PreparedAppend:
    """Return a message as ``EventStore.append`` takes it."""
    return message.conversation_id, [message.event()]


def appender(store: EventStore) -> Callable[[int, PreparedAppend], Awaitable[None]]:
    """Return a function that appends to a store."""

    async def append(_: int, given: PreparedAppend) -> None:
        await store.append(given[0], given[1])

    return append


class Benchmark:
    """A run of the benchmark: a workspace, a scale, an open store, and what could not be measured.

    Attributes:
        store: an open store in the workspace.
        report: called with a few words about the current step.
        skipped: what cannot be measured here, and why.
        failed: what failed, and why.
    """

    def __init__(self, workspace: Workspace, scale: Scale) -> None:
        self.workspace = workspace
        self.scale = scale
        self.report: Callable[[str], None] = lambda _: None
        self.skipped: list[str] = []
        self.failed: list[str] = []
        self._stack = AsyncExitStack()
        self._seeds = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.store = await stack.enter_async_context(EventStore(self.workspace.settings))
            async with self.connection() as connection:
                await connection.execute(query("tools.benchmark", "bare_tables"))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Open a plain psycopg connection."""
        async with self.workspace.connections(1) as (connection,):
            yield connection

    async def in_turn(
        self, what: str, sides: Sequence[Side], *, runs: int | None = None, slices: int | None = None
    ) -> list[list[float]]:
        """Run the sides in turn, repeatedly, each time on new messages.

        Args:
            what: what is measured, in a few words.
            sides: the sides, the store's first.
            runs, slices: instead of the scale's.

        Returns:
            For each side its values, one for each run: the mean of the slices.
        """
        self._seeds += 1
        measured: list[list[float]] = [[] for _ in sides]
        runs, slices = runs or self.scale.runs, slices or self.scale.slices
        for run in range(runs):
            self.report(f"{what}, run {run + 1} of {runs}")
            parts = [[await side(f"{self._seeds}/{run}/{part}") for side in sides] for part in range(slices)]
            for values, of_side in zip(measured, zip(*parts, strict=True), strict=True):
                values.append(mean(of_side))
        return measured

    async def mean_of_slices(self, side: Side, seed: str) -> float:
        """Measure one side for a whole run."""
        return mean([await side(f"{seed}/{part}") for part in range(self.scale.slices)])

    def appends(self, callers: int, store: EventStore | None = None) -> Side:
        """Return the side that appends single messages to a store with a number of callers."""
        store = store or self.store
        return self.rate(Throughput(callers, prepare_append, driver(appender(store)), self.events_of(store)))

    def events_of(self, store: EventStore, condition: str = "true") -> Stored:
        """Return a function that counts the events of a store without the administrative acts, such as of a rebuild.

        Args:
            condition: in SQL; only events that meet it are counted.
        """
        text = f"SELECT count(*) FROM events WHERE conversation_id <> administration_id() AND {condition}"
        return self.counter(text, store.settings.db_schema, as_owner=True)

    def counter(self, text: str, schema: str, *, as_owner: bool = False) -> Stored:
        """Return a function that runs a query which counts something in a schema.

        Args:
            as_owner: it runs as the owner of the log, from whom row-level security hides nothing.
        """

        async def count() -> int:
            async with self.workspace.connections(1, schema) as (connection,):
                if as_owner:
                    await connection.execute(query("tools.benchmark", "become_owner"))
                row = await (await connection.execute(text.encode())).fetchone()
            assert row is not None
            return int(row[0])

        return count

    def rate(self, throughput: Throughput[Any]) -> Side:
        """Return a side that measures a throughput."""
        return lambda seed: throughput.measure(seed, self.scale.seconds / self.scale.slices)

    def seconds_each(self, act: Callable[[], Awaitable[int]], rows: int, *, times: int | None = None) -> Side:
        """Return a side that measures the mean seconds of one read of a number of rows.

        Args:
            times: how often it reads in a slice; by default as often as the scale says.
        """
        rounds = times or self.scale.rounds

        async def measure(_seed: str) -> float:
            assert await act() == rows
            with no_collection():
                begin = perf_counter()
                for _ in range(rounds):
                    await act()
                return (perf_counter() - begin) / rounds

        return measure

    def skip(self, reason: str) -> None:
        """Record what cannot be measured here, and why."""
        if reason not in self.skipped:
            self.skipped.append(reason)
