"""Lookups that arrive while a query runs are batched into the next one."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent_manager.auth.authenticator import MAX_BATCH, PAUSE_SECONDS, QueryBatcher
from eventstore.errors import ServerError


class Halves:
    """A query that finds even numbers, with their halves, once it is released."""

    def __init__(self) -> None:
        self.queries: list[list[int]] = []
        self.released = asyncio.Event()
        self.fails = False

    async def fetch(self, keys: list[int]) -> dict[int, int]:
        self.queries.append(keys)
        await self.released.wait()
        if self.fails:
            raise ServerError("away")
        return {key: key // 2 for key in keys if key % 2 == 0}


async def started(batcher: QueryBatcher[int, int], keys: list[int]) -> list[asyncio.Task[int | None]]:
    tasks = [asyncio.create_task(batcher.get(key)) for key in keys]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_one_query_runs_at_a_time_and_the_next_one_serves_all_that_wait() -> None:
    halves = Halves()
    batcher = QueryBatcher(halves.fetch)
    tasks = await started(batcher, [2]) + await started(batcher, [4, 5, 4])
    assert halves.queries == [[2]]
    halves.released.set()
    assert await asyncio.gather(*tasks) == [1, 2, None, 2]
    assert halves.queries == [[2], [4, 5]]


async def test_a_running_query_does_not_serve_later_lookups() -> None:
    """The result may be older than something that the later caller has seen."""
    halves = Halves()
    batcher = QueryBatcher(halves.fetch)
    tasks = await started(batcher, [2]) + await started(batcher, [2])
    halves.released.set()
    assert await asyncio.gather(*tasks) == [1, 1]
    assert halves.queries == [[2], [2]]


async def test_a_flood_is_split_into_batches_of_limited_size() -> None:
    halves = Halves()
    halves.released.set()
    batcher = QueryBatcher(halves.fetch)
    tasks = await started(batcher, list(range(2 * MAX_BATCH + 1)))
    assert await asyncio.gather(*tasks) == [n // 2 if n % 2 == 0 else None for n in range(2 * MAX_BATCH + 1)]
    assert max(map(len, halves.queries)) == MAX_BATCH


async def test_the_error_of_a_query_is_raised_for_all_that_wait_and_the_next_lookup_queries_again() -> None:
    halves = Halves()
    batcher = QueryBatcher(halves.fetch)
    tasks = await started(batcher, [2, 2, 4])
    halves.fails = True
    halves.released.set()
    for task in tasks:
        with pytest.raises(ServerError, match="away"):
            await task
    halves.fails = False
    assert await batcher.get(4) == 2


async def test_a_cancelled_lookup_does_not_cancel_others() -> None:
    halves = Halves()
    batcher = QueryBatcher(halves.fetch)
    cancelled, other = await started(batcher, [2, 2])
    cancelled.cancel()
    halves.released.set()
    assert await other == 1
    assert cancelled.cancelled()
    await batcher.close()


async def test_sequential_guesses_cost_few_queries() -> None:
    halves = Halves()
    halves.released.set()
    batcher = QueryBatcher(halves.fetch)
    for odd in range(1, 21, 2):
        assert await batcher.get(odd) is None
    began = time.monotonic()
    guesses = [asyncio.create_task(_guess(batcher, began + 0.5, number)) for number in range(3)]
    assert await batcher.get(2) == 1
    await asyncio.gather(*guesses)
    took = time.monotonic() - began
    assert len(halves.queries) <= 10 + took / PAUSE_SECONDS + 1


async def _guess(batcher: QueryBatcher[int, int], until: float, number: int) -> None:
    while time.monotonic() < until:
        assert await batcher.get(2 * number + 1) is None


async def test_lookups_of_known_keys_do_not_pause() -> None:
    halves = Halves()
    halves.released.set()
    batcher = QueryBatcher(halves.fetch)
    began = time.monotonic()
    for number in range(200):
        assert await batcher.get(2 * number) == number
    assert time.monotonic() - began < 200 * PAUSE_SECONDS
