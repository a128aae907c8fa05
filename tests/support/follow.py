"""Helpers that follow a subscription in the background, and wait for conditions instead of sleeping."""

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

Admin = psycopg.AsyncConnection[Any]

PATIENCE = 30.0
"""Seconds after which a condition counts as failed; no passing test waits so long."""

_WAITING = """
SELECT count(*)
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid AND a.state = 'idle'  -- until then the wait may still fail
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
    """Collects the events of a subscription as they arrive."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with aclosing(self._events) as events:  # type: ignore[type-var]
            async for event in events:
                self._queue.put_nowait(event)

    async def take(self, count: int = 1, patience: float = PATIENCE) -> list[Event]:
        """Return the next events; fail after ``patience`` seconds."""
        async with asyncio.timeout(patience):
            return [await self._queue.get() for _ in range(count)]

    async def contents(self, count: int = 1) -> list[Any]:
        """Return the contents of the next events."""
        return [event.content for event in await self.take(count)]

    def is_empty(self) -> bool:
        """Return whether every event that arrived was taken."""
        return self._queue.empty()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait((self.task,))
        with suppress(asyncio.CancelledError, EventStoreError):
            await self.task


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.002)


async def until_waiting(connection: Admin, count: int = 1) -> None:
    """Wait until a number of processes wait for notifications."""

    async def is_waiting() -> bool:
        row = await (await connection.execute(_WAITING)).fetchone()
        return row is not None and row[0] == count

    await eventually(is_waiting)


async def until_nothing_is_in_flight(connection: Admin) -> None:
    """Wait until the log is final up to its last position."""

    async def at_rest() -> bool:
        row = await (await connection.execute("SELECT lowest_append_in_flight(last_position()) IS NULL")).fetchone()
        return row is not None and row[0]

    await eventually(at_rest)


async def end_all_others(connection: Admin) -> int:
    """Terminate every other connection to the database. Return their number."""
    row = await (await connection.execute(_END_ALL)).fetchone()
    assert row is not None
    return int(row[0])
