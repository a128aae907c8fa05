"""Throughput: callers that append one item after the other for some seconds."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from time import perf_counter
from typing import Any, Generic, TypeVar

from agent_manager.bench.messages import Message, streams

T = TypeVar("T")

_WARM_UP_EACH, _WARM_UP_SECONDS = 40, 0.5
_MARGIN = 1.7
"""So much more is prepared than the last run could append."""


class Throughput(Generic[T]):
    """A side of a comparison: its appends a second with so many callers.

    Args:
        prepare: makes of a message what is appended, before the clock starts.
        run: appends for so many seconds, a list for each caller, and returns how many a second.
        begin: told of the messages to come, before the clock starts.
    """

    def __init__(
        self,
        callers: int,
        prepare: Callable[[Message], T],
        run: Callable[[Sequence[Sequence[T]], float], Awaitable[float]],
        begin: Callable[[Sequence[Message]], Awaitable[None]] | None = None,
    ) -> None:
        self._callers = callers
        self._prepare = prepare
        self._run = run
        self._begin = begin
        self._rate = 0.0

    async def measure(self, seed: str, seconds: float) -> float:
        """Appends a second. The same seed means the same messages for every side."""
        if not self._rate:
            # Connections are made, statements prepared and caches filled; and it is known how much to prepare.
            warm_up = await self._planned(f"{seed}/warm-up", _WARM_UP_EACH)
            self._rate = await self._run(warm_up, min(seconds, _WARM_UP_SECONDS))
        each = int(self._rate * seconds * _MARGIN / self._callers) + _WARM_UP_EACH
        self._rate = await self._run(await self._planned(seed, each), seconds)
        return self._rate

    async def _planned(self, seed: str, each: int) -> list[list[T]]:
        messages = [list(islice(stream, each)) for stream in streams(seed, self._callers)]
        if self._begin is not None:
            await self._begin([message for some in messages for message in some])
        return [[self._prepare(message) for message in some] for some in messages]


def driven(act: Callable[[int, T], Awaitable[None]]) -> Callable[[Sequence[Sequence[T]], float], Awaitable[float]]:
    """A run of :func:`drive` that does this with each item."""
    return lambda plan, seconds: drive(plan, act, seconds)


async def drive(plan: Sequence[Sequence[T]], act: Callable[[int, T], Awaitable[None]], seconds: float) -> float:
    """Lets a caller for each list do one item after the other until time or one of the lists is over.

    Returns:
        Items done a second, until the last caller has finished.
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
            deadline = 0.0  # with fewer callers than asked for nothing is measured

        await together(call(caller, items) for caller, items in enumerate(plan))
        return done / (perf_counter() - begin)


@contextmanager
def no_collection() -> Iterator[None]:
    """What was prepared is kept out of the garbage collector's rounds, which would charge it to one side."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines at the same time; if one fails the others are cancelled, and its own error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def drive_threads(plan: Sequence[Sequence[T]], act: Callable[[int, T], None], seconds: float) -> float:
    """The same as :func:`drive`, each caller in a thread of its own."""
    deadline = 0.0

    def call(caller: int, items: Sequence[T]) -> int:
        nonlocal deadline
        done = 0
        for item in items:
            act(caller, item)
            done += 1
            if perf_counter() >= deadline:
                return done
        deadline = 0.0
        return done

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(plan)) as threads, no_collection():
        begin = perf_counter()
        deadline = begin + seconds
        calls = [loop.run_in_executor(threads, call, caller, items) for caller, items in enumerate(plan)]
        done = sum(await asyncio.gather(*calls))
        return done / (perf_counter() - begin)
