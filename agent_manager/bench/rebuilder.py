"""A process that rebuilds the read tables of the server that the settings name, again and again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from eventstore import EventStore
from projections import named, rebuild

NAMES = ("conversations", "messages", "tasks")


async def _rebuild() -> None:
    async with EventStore() as store:
        print("ready", flush=True)
        while True:
            await rebuild(store, named(NAMES))


def main() -> None:
    """Prints ``ready``, and runs until it is told to stop."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_rebuild())
