"""Waking: a consumer that has nothing to do sleeps until an append says otherwise.

One listening connection per store, one slot on it, shared by all consumers of the process. The order of the steps is
what makes it right, and is argued in ``ORDER.md``: LISTEN is committed; the slot is taken exclusively; only then the
server looks once more for appends in flight and for events that wait (``lie_down``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg
from psycopg import sql

from eventstore.database.connection import Connection
from eventstore.ending import end
from eventstore.errors import EventStoreError, StoreClosed

POLL_SECONDS = 5.0
"""A sleeper looks by itself this often: a net under the notifications, and what notices a dead connection."""

_BACK_OFF_FIRST, _BACK_OFF_LONGEST = 0.001, 0.05
RECONNECT_SECONDS = 1.0


class Waker:
    """Lets the consumers of one event loop sleep on one connection."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._somebody_waits = asyncio.Event()
        self._stirred = asyncio.Event()
        self._lay_down_at: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._back_off = 0.0
        self._closed = False

    async def wait(self, seen: int) -> None:
        """Returns when there may be events beyond the position ``seen``.

        It may return without any; it never sleeps through one for longer than :data:`POLL_SECONDS`.
        """
        if self._closed:
            raise StoreClosed
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="eventstore-waker")
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[woken] = seen
        self._somebody_waits.set()
        if self._lay_down_at is not None and seen < self._lay_down_at:
            self._stirred.set()  # whether anything waits beyond this position has not been looked at yet
        try:
            await woken
        finally:
            self._waiting.pop(woken, None)

    async def close(self) -> None:
        """Stops listening."""
        self._closed = True
        if self._task is not None:
            await end([self._task])
            self._task = None
        self._wake_all()  # a task that was cancelled before its first step woke nobody

    async def _run(self) -> None:
        try:
            while True:
                with suppress(psycopg.Error, EventStoreError):
                    await self._listen_while_connected()
                # Without a connection nobody can be woken: everybody looks for themselves until there is one again.
                await asyncio.sleep(RECONNECT_SECONDS)
                self._wake_all()
        finally:
            self._wake_all()

    async def _listen_while_connected(self) -> None:
        async with await self._connect() as connection:
            row = await (await connection.execute("SELECT claim_slot(), wake_channel()")).fetchone()
            assert row is not None
            slot, channel = row
            connection.add_notify_handler(lambda _: self._stirred.set())
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            while True:
                await self._somebody_waits.wait()
                await self._sleep_once(connection, slot)

    async def _sleep_once(self, connection: Connection, slot: int) -> None:
        seen = min(self._waiting.values(), default=None)
        if seen is not None:
            self._stirred.clear()
            self._lay_down_at = seen
            row = await (await connection.execute("SELECT lie_down(%s, %s)", (slot, seen))).fetchone()
            if row is not None and row[0]:
                self._back_off = 0.0
                await self._until_stirred(connection)
                await connection.execute("SELECT get_up(%s)", (slot,))
            else:
                # An append is in flight, or its event already waits. In the second case it is found at once.
                await asyncio.sleep(self._back_off)
                self._back_off = min(max(self._back_off * 2, _BACK_OFF_FIRST), _BACK_OFF_LONGEST)
            self._lay_down_at = None
        self._wake_all()

    async def _until_stirred(self, connection: Connection) -> None:
        """Until a notification, a consumer that has seen less, a broken connection, or the time to look anyway."""
        if connection.pgconn.notifies() is not None:
            return  # it came in one packet with the answer, so the socket will not become readable for it
        loop = asyncio.get_running_loop()
        socket = connection.fileno()
        loop.add_reader(socket, self._stirred.set)
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._stirred.wait()
        except TimeoutError:
            return
        finally:
            loop.remove_reader(socket)

    def _wake_all(self) -> None:
        self._somebody_waits.clear()
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)
