"""A process that follows the log and is woken by notifications alone; run by the tests.

Prints ``ready``, and then what each event holds.
"""

from __future__ import annotations

import asyncio
import sys

import eventstore.notifier
from eventstore import EventStore, Settings


async def main(url: str) -> None:
    """Follows until it is ended."""
    eventstore.notifier.POLL_SECONDS = 10_000.0  # who is not woken sleeps for good
    async with EventStore(Settings(_env_file=None, database_url=url)) as store:
        print("ready", flush=True)
        async for event in store.subscribe():
            print(event.content, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
