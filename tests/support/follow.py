"""Following a subscription in the background, and waiting for conditions instead of for time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Self

import psycopg

from eventstore import Event
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import EventStoreError

PATIENCE = 8.0
"""Seconds after which a condition that should come true is given up; no test waits so long when it passes."""

_ASLEEP = """
SELECT count(*)
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid AND a.state = 'idle'  -- who is just lying down may get up again at once
 WHERE l.locktype = 'advisory' AND l.classid = 'waiter_flag'::regclass::oid AND l.objid = 0 AND l.objsubid = 2
   AND l.mode = 'ShareLock' AND l.granted
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
"""

_END_ALL = """
SELECT count(pg_terminate_backend(pid))
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class Follower:
    """Takes events from a subscription as they come."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with aclosing(self._events) as events:  # type: ignore[type-var]
            async for event in events:
                self._queue.put_nowait(event)

    async def take(self, count: int = 1, patience: float = PATIENCE) -> list[Event]:
        """The next events, within so many seconds."""
        async with asyncio.timeout(patience):
            return [await self._queue.get() for _ in range(count)]

    async def contents(self, count: int = 1) -> list[Any]:
        """What the next events hold."""
        return [event.content for event in await self.take(count)]

    def is_empty(self) -> bool:
        """Whether every event that came was taken."""
        return self._queue.empty()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait((self.task,))
        with suppress(asyncio.CancelledError, EventStoreError):
            await self.task


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once the condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.002)


async def until_asleep(connection: psycopg.AsyncConnection[Any], count: int = 1) -> None:
    """Returns once so many consuming processes sleep."""

    async def asleep() -> bool:
        row = await (await connection.execute(_ASLEEP)).fetchone()
        return row is not None and row[0] == count

    await eventually(asleep)


async def until_nothing_is_in_flight(connection: psycopg.AsyncConnection[Any]) -> None:
    """Returns once the log is final up to its last position."""

    async def at_rest() -> bool:
        row = await (await connection.execute("SELECT lowest_append_in_flight(last_position()) IS NULL")).fetchone()
        return row is not None and row[0]

    await eventually(at_rest)


async def end_all_others(connection: psycopg.AsyncConnection[Any]) -> int:
    """Terminates every other connection to the database; tells how many."""
    row = await (await connection.execute(_END_ALL)).fetchone()
    assert row is not None
    return int(row[0])
