"""A process that listens, as a consumer of the log or on a bare LISTEN, and says when it has heard something.

The server is named by the settings. It prints ``ready``, and then for each event or notification the time on the clock
that all processes of a machine share, in nanoseconds.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic_ns

import psycopg

from eventstore import EventStore
from eventstore.read import horizon

CHANNEL = "eventstore_bench"


async def subscribe(*, say: bool) -> None:
    """Follows the log from its end."""
    async with EventStore() as store:
        end = await horizon(store.parts.auditor)
        print("ready", flush=True)
        async for _ in store.subscribe(after=end):
            if say:
                print(monotonic_ns(), flush=True)


async def listen() -> None:
    """Waits for notifications, on a connection such as the store's."""
    async with EventStore() as store, await store.connect() as connection:
        await _listen(connection)


async def _listen(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    await connection.execute(f"LISTEN {CHANNEL}".encode())
    print("ready", flush=True)
    async for _ in connection.notifies():
        print(monotonic_ns(), flush=True)


def main(kind: str) -> None:
    """Runs until it is told to stop.

    Args:
        kind: ``subscribe``, ``follow`` (a subscription that says nothing) or ``listen``.
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(listen() if kind == "listen" else subscribe(say=kind == "subscribe"))
