"""Stopping a command on SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine, and cancels it on SIGINT or SIGTERM.

    An exception raised by a signal handler would come up wherever the loop happens to be, in any task of any library;
    a cancellation reaches the work, at a place where it waits.

    Raises:
        KeyboardInterrupt: it was ended by a signal, and has cleaned up.
    """
    stopped = False

    async def stoppable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return await work

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        if stopped:
            raise KeyboardInterrupt from None
        raise
