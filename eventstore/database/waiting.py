"""A connection that waits for its server at little cost.

A result comes in pieces of eight kilobytes. psycopg wakes its coroutine for each of them, and tells the event loop each
time to watch the socket and to stop watching it; that takes as long as all the rest of reading a page of events. Here
the event loop calls back instead, until the result is whole. Everything else is left to psycopg, cancellation too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

_Result = TypeVar("_Result")

_LOOK_SECONDS = 1.0
"""How often a connection is looked at of which nothing is heard: somebody else may have closed it."""


class WaitingConnection(psycopg.AsyncConnection[TupleRow]):
    """A connection in all else like any other."""

    async def wait(self, gen: PQGen[_Result], *arguments: Any, **options: Any) -> _Result:
        """Carries out an operation on the connection. Called by psycopg."""
        if arguments or options:  # with a time limit of its own
            return await super().wait(gen, *arguments, **options)
        try:
            state = next(gen)
        except StopIteration as end:
            result: _Result = end.value
            return result
        waiting = _Reading(gen, state)
        try:
            if state == Wait.R:
                await waiting.run(self.pgconn)
        except asyncio.CancelledError:
            await _cancel(super().wait(waiting.rest()))
            raise
        return waiting.result if waiting.is_over else await super().wait(waiting.rest())


class _Reading:
    """An operation as far as it only reads."""

    def __init__(self, gen: PQGen[Any], state: Wait) -> None:
        self._gen, self._state = gen, state
        self.is_over = False
        self.result: Any = None

    async def run(self, pgconn: PGconn) -> None:
        """Goes on until the operation is over or has something to write."""
        loop = asyncio.get_running_loop()
        stopped = loop.create_future()
        socket = pgconn.socket
        timer: asyncio.TimerHandle

        def step() -> None:
            if stopped.done():
                return
            try:
                self._state = self._gen.send(Ready.R)
            except StopIteration as end:
                self.is_over, self.result = True, end.value
                stopped.set_result(None)
            except Exception as error:
                stopped.set_exception(error)
            else:
                if self._state != Wait.R:
                    stopped.set_result(None)

        def look() -> None:
            nonlocal timer
            timer = loop.call_later(_LOOK_SECONDS, look)
            if pgconn.status != ConnStatus.OK and not stopped.done():
                stopped.set_exception(psycopg.OperationalError("the connection was closed while it was waited for"))

        timer = loop.call_later(_LOOK_SECONDS, look)
        loop.add_reader(socket, step)
        try:
            await stopped
        finally:
            timer.cancel()
            loop.remove_reader(socket)

    def rest(self) -> Generator[Wait, Ready | int, Any]:
        """What remains of the operation."""
        while not self.is_over:
            ready = yield self._state
            try:
                self._state = self._gen.send(ready)
            except StopIteration as end:
                self.is_over, self.result = True, end.value
        return self.result


async def _cancel(waiting: Any) -> None:
    """Lets psycopg wait, and cancels that: it knows how to end a query and leaves the connection usable or closed."""
    task = asyncio.ensure_future(waiting)
    asyncio.get_running_loop().call_soon(task.cancel)  # once it waits
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue  # the caller raises it
    if not task.cancelled():
        task.exception()
