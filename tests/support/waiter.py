"""A process that follows the log by notifications alone; run by the tests.

It prints ``ready``, and then the content of each event.
"""

from __future__ import annotations

import asyncio
import sys

import eventstore.notifier
from eventstore import EventStore, Settings


async def main(url: str) -> None:
    """Follow the log until the process is ended."""
    eventstore.notifier.POLL_SECONDS = 10_000.0  # without a notification it waits forever
    async with EventStore(Settings(_env_file=None, database_url=url)) as store:
        print("ready", flush=True)
        async for event in store.subscribe():
            print(event.content, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
