"""The longest time that the event loop of a test was kept from other tasks."""

from __future__ import annotations

import asyncio
import time


class Longest:
    """The most of the processor's time that passed before other tasks of the loop could run."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def watch(self) -> None:
        """Watches until it is cancelled."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.seconds = max(self.seconds, time.thread_time() - before)
