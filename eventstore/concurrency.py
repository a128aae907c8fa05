"""Helpers for asyncio: cancel tasks and wait for them, run coroutines together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

# Ending tasks for certain


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they have ended.

    Once is not enough: the driver may lose a cancellation that comes while it ends a query.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1)


# Several coroutines at once; the first that fails ends the others, and its error is raised as it is

T = TypeVar("T")


async def gather_or_raise(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What they return, in their order."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
