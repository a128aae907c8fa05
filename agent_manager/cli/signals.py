"""Stopping a command on SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and cancel it on SIGINT or SIGTERM.

    An exception that a signal handler raises would surface wherever the loop happens to be, in any task of any library;
    a cancellation reaches the work at a place where it awaits something.

    Raises:
        KeyboardInterrupt: a signal ended it, and it has cleaned up.
    """
    is_stopped = False

    async def stoppable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop() -> None:
            nonlocal is_stopped
            is_stopped = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return await work

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        if is_stopped:
            raise KeyboardInterrupt from None
        raise
