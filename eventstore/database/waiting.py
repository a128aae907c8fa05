"""The base of all asynchronous connections: cheap waits, with a deadline, and safe names of prepared statements.

A result comes in pieces of eight kilobytes. psycopg wakes its coroutine for each of them, and tells the event loop each
time to watch the socket and to stop watching it; that takes as long as all the rest of reading a page of events. Here
the event loop calls back instead, until the result is whole. Everything else is left to psycopg, cancellation too.

No wait lasts longer than the server takes: see :mod:`eventstore.database.liveness`. How statements are named, see
:mod:`eventstore.database.statements`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

from eventstore.database import hosts
from eventstore.database.liveness import Liveness
from eventstore.database.statements import HashedNames

_Result = TypeVar("_Result")

_LOOK_SECONDS = 1.0
"""How often a connection is looked at of which nothing is heard: somebody else may have closed it."""


class WaitingConnection(psycopg.AsyncConnection[TupleRow]):
    """A connection whose waits end when the server has gone.

    Attributes:
        liveness: the watch over its server.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prepared = HashedNames()
        self.liveness = Liveness(self.pgconn)

    @classmethod
    async def connect(cls, conninfo: str = "", *arguments: Any, **options: Any) -> Self:
        """Connect as psycopg does, to the host first that was reached last."""
        connection = await super().connect(hosts.reordered(conninfo), *arguments, **options)
        hosts.remember(conninfo, connection.pgconn)
        return connection

    async def wait(self, gen: PQGen[_Result], *arguments: Any, **options: Any) -> _Result:
        """Carry out an operation on the connection. Called by psycopg."""
        if arguments or options:  # with a time limit of its own
            return await super().wait(gen, *arguments, **options)
        try:
            state = next(gen)
        except StopIteration as end:
            result: _Result = end.value
            return result
        waiting = _Reading(gen, state, self.liveness)
        self.liveness.begin()
        try:
            try:
                if state == Wait.R:
                    await waiting.run(self.pgconn)
            except asyncio.CancelledError:
                await _cancel(super().wait(waiting.rest()))
                raise
            return waiting.result if waiting.is_over else await super().wait(waiting.rest())
        except psycopg.OperationalError as error:
            if self.liveness.reason and error.sqlstate is None:
                raise psycopg.OperationalError(self.liveness.reason) from error
            raise
        finally:
            self.liveness.end()


class _Reading:
    """An operation as far as it only reads."""

    def __init__(self, gen: PQGen[Any], state: Wait, liveness: Liveness) -> None:
        self._gen, self._state, self._liveness = gen, state, liveness
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
            self._liveness.heard()
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
            if ready:
                self._liveness.heard()
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
