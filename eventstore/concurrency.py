"""Helpers for asyncio: independent tasks, the end of tasks, coroutines that run together, and functions that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def independent_task(coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
    """Begin a task that serves all callers: it does not inherit the context of the one that happens to begin it.

    Otherwise it would go on under the id and the trace of one request.
    """
    return asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended.

    They are cancelled repeatedly: the driver may lose a cancellation that arrives while a query ends.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1)


async def run_in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Return what a function returns that runs in a thread.

    If the caller is cancelled, it ends only when the function has, which may use a lock or a file of the caller.
    """
    running = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


async def gather_or_raise(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines together and return their results in order.

    If one fails, the others are cancelled, and its error is raised as it is.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Return the result of a function that may block without end, such as a query to a server that is silent.

    Unlike the threads of :func:`asyncio.to_thread`, this one does not keep the event loop and the process from ending.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    result.set_running_or_notify_cancel()
    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(result)
