"""Waking: a consumer that has nothing to do sleeps until an append says otherwise.

One listening connection per store, shared by all consumers of the process, and connected anew whenever it fails. What
happens on it is in ``watch.py``; why nothing is slept through is argued in ``docs/concepts/order.md``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg

from eventstore.caller import Whose
from eventstore.ending import end
from eventstore.errors import EventStoreError, InputError, StoreClosed
from eventstore.listener import Listener
from eventstore.pace import Pace
from eventstore.watch import Demand, News, Watch

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0
"""Between attempts to connect; meanwhile the consumers look for themselves, as often."""

LOOK_EVENTS = 100
"""So many events at most come with the waking; a consumer that is further behind reads on by itself."""


class Waker:
    """Lets the consumers of one event loop sleep on one connection."""

    def __init__(self, open_listener: Callable[[Callable[[], None]], Coroutine[Any, Any, Listener]]) -> None:
        """Connects when somebody waits.

        Args:
            open_listener: connects; the listener calls back for each notification, and when it has ended.
        """
        self._open_listener = open_listener
        self._waiting: dict[asyncio.Future[News | None], Demand] = {}
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(self._loop.time())
        self._watch: Watch | None = None
        self._task: asyncio.Task[None] | None = None
        self._said = ""
        self._closed = False

    async def wait(self, seen: int, limit: int = LOOK_EVENTS, whose: Whose | None = None) -> News | None:
        """Returns when there may be events beyond the position ``seen``.

        Args:
            limit: how many events to bring along, at most; 0 for who reads by itself: it is woken before anybody looks.
            whose: events to bring along.

        Returns:
            What has come; without events where others wait who see other ones; None where nobody can look for all.

        Raises:
            InputError: listening connections are not possible; somebody has to correct a setting.
        """
        if self._closed:
            raise StoreClosed
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="eventstore-waker")
        woken: asyncio.Future[News | None] = self._loop.create_future()
        self._waiting[woken] = Demand(seen, limit, whose if limit else None)
        if self._watch is not None:
            self._watch.came(seen)
        try:
            return await woken
        finally:
            self._waiting.pop(woken, None)

    async def close(self) -> None:
        """Stops listening."""
        self._closed = True
        if self._task is not None:
            await end([self._task])
            self._task = None
        self._wake_all()  # a task that was cancelled before its first step woke nobody

    def demand(self) -> Demand | None:
        """What those who wait want now; None where nobody does."""
        if not self._waiting:
            return None
        wanted = self._waiting.values()
        if len(wanted) == 1:
            [only] = wanted
            return only if only.limit else Demand(only.seen, 1, None)
        lowest = min(each.seen for each in wanted)
        askers = {each.whose for each in wanted if each.limit}
        if len(askers) != 1:
            return Demand(lowest, 1, None)  # what one of them sees is not for the others
        return Demand(lowest, max(each.limit for each in wanted), *askers)

    def rouse(self) -> None:
        """Wakes those who read by themselves."""
        for woken in [woken for woken, demand in self._waiting.items() if not demand.limit]:
            del self._waiting[woken]
            if not woken.done():
                woken.set_result(None)

    def hand_out(self, news: News) -> bool:
        """Wakes those who have not seen all that has come; False if there is nobody.

        Who has not even seen what lies before it, or sees other events, is only told that something is there.
        """
        eager = [(woken, demand) for woken, demand in self._waiting.items() if demand.seen < news.position]
        for woken, demand in eager:
            del self._waiting[woken]
            if not woken.done():
                fits = demand.seen >= news.after and demand.whose == news.whose
                woken.set_result(news if fits else news.without_events())
        return bool(eager)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._listen_while_connected()
                except InputError as error:
                    self._fail_all(error)
                    return
                except (psycopg.Error, EventStoreError, OSError) as error:
                    self._say(error)
                # Without a connection nobody can be woken: everybody looks for themselves until there is one again.
                self._wake_all()
                await asyncio.sleep(RECONNECT_SECONDS)
                self._wake_all()
        finally:
            self._wake_all()

    async def _listen_while_connected(self) -> None:
        watch = Watch(self, self._pace)
        listener = await self._open(watch)
        try:
            self._said = ""
            self._watch = watch
            await watch.keep(listener)
        finally:
            self._watch = None
            listener.close()

    async def _open(self, watch: Watch) -> Listener:
        """Connects, while the consumers look for themselves."""
        opening = asyncio.create_task(self._open_listener(watch.heard))
        try:
            while not opening.done():
                await asyncio.wait([opening], timeout=RECONNECT_SECONDS)
                if not opening.done():
                    self._wake_all()
            return opening.result()
        except BaseException:
            await end([opening])
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()
            raise

    def _say(self, error: Exception) -> None:
        """Once, until it has worked again."""
        if str(error) != self._said:
            self._said = str(error)
            log.warning("listening: %s", error)

    def _wake_all(self) -> None:
        self._tell_all(lambda woken: woken.set_result(None))

    def _fail_all(self, error: Exception) -> None:
        self._tell_all(lambda woken: woken.set_exception(error))

    def _tell_all(self, tell: Callable[[asyncio.Future[News | None]], None]) -> None:
        waiting, self._waiting = self._waiting, {}
        for woken in waiting:
            if not woken.done():
                tell(woken)
