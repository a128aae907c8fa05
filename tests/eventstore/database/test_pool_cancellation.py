"""A caller that is cancelled at any instant returns its connection."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from random import Random

from eventstore import EventStore, Settings
from eventstore.scope import Caller

SIZE = 4
ROUNDS = 150


async def test_callers_that_are_cancelled_again_and_again_lose_no_connection(settings: Settings) -> None:
    random = Random(1)
    async with EventStore(settings.model_copy(update={"pool_size": SIZE})) as store:
        pool = store.connections.reader

        async def use(tenant: str) -> None:
            async with pool.connection(Caller(tenant)):
                await asyncio.sleep(0)

        for _ in range(ROUNDS):
            tasks = [asyncio.create_task(use(random.choice("abc"))) for _ in range(12)]
            for _ in range(random.randrange(12)):
                await asyncio.sleep(0)
            for _ in range(8):  # as a scope of anyio does, at each iteration of the loop
                for task in tasks:
                    task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait(tasks)
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)
        async with AsyncExitStack() as stack, asyncio.timeout(5):
            for number in range(SIZE):
                await stack.enter_async_context(pool.connection(Caller(f"t{number}")))
