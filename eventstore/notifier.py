"""Waiting for new events: one listening connection per store, shared by all consumers of the process.

A notification costs each append a ``NOTIFY``, and costs the consumers a query, however many events that finds. So
appends notify only while a consumer waits. A consumer without events waits for a notification; one that follows a dense
stream polls instead, at most a few times a second (:mod:`eventstore.poll_throttle`). Events that follow the last one
seen without a gap are final, because their positions are taken; if there is a gap, the horizon decides. The order of
the steps is what makes this correct; ``docs/concepts/order.md`` argues why no event is missed.

If the connection (:mod:`eventstore.listener`) fails it is opened again, and meanwhile all consumers poll.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

import psycopg

from eventstore.concurrency import cancel_and_wait, independent_task
from eventstore.database.connection import RECONNECT_SECONDS
from eventstore.errors import EventStoreError, InputError, StoreClosed
from eventstore.events import Event
from eventstore.listener import Found, Listener
from eventstore.poll_throttle import PollThrottle
from eventstore.scope import DataScope

log = logging.getLogger(__name__)

LOOK_EVENTS = 100
"""Events that a wait returns at most. A consumer that is further behind reads the log by itself."""
POLL_SECONDS = 5.0
"""The interval of polls without a notification: a safety net, and a way to notice a dead connection."""
_END_WAIT_SECONDS = 0.005  # a consumer that returns within this time finds the connection still waiting
_FIRST_BACK_OFF_SECONDS, _MAX_BACK_OFF_SECONDS = 0.001, 0.05


class Interest(NamedTuple):
    """The request of one waiting consumer, or of all together.

    Attributes:
        seen: the lowest position that one of them has seen.
        limit: number of events to return at most; 0 for a consumer that reads by itself.
        scope: the scope of these events; None returns no events, only that there are some.
    """

    seen: int
    limit: int
    scope: DataScope | None


class EventBatch(NamedTuple):
    """New events.

    Attributes:
        after: the position after which they were read.
        position: the last position that was read; the log is final up to it.
        events: the events between these that the scope contains, in order.
        is_complete: no further events were found.
        scope: the scope of the events; None if there are none because it is unknown.
    """

    after: int
    position: int
    events: list[Event]
    is_complete: bool
    scope: DataScope | None

    def without_events(self) -> EventBatch:
        """Return the batch for a consumer that must read the log by itself."""
        return self._replace(events=[], is_complete=False, scope=None)


class Notifier:
    """Lets the consumers of one event loop wait for new events, over one listening connection.

    It connects when a consumer waits; ``open_listener`` is passed the callback for notifications and for the end.
    """

    def __init__(self, open_listener: Callable[[Callable[[], None]], Coroutine[Any, Any, Listener]]) -> None:
        self._open_listener = open_listener
        self._waiting: dict[asyncio.Future[EventBatch | None], Interest] = {}
        self._loop = asyncio.get_running_loop()
        self._throttle = PollThrottle(self._loop.time())
        self._watcher: LogWatcher | None = None
        self._task: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[Listener] | None = None
        self._logged = ""
        self._is_closed = False

    async def wait(self, seen: int, limit: int = LOOK_EVENTS, scope: DataScope | None = None) -> EventBatch | None:
        """Wait until there may be events after the position ``seen``.

        Args:
            limit: number of events to return at most; 0 for a consumer that reads the log by itself, and is notified
                before the events are read here.
            scope: the scope of the events to return.

        Returns:
            The new events; a batch without events if other consumers wait with another scope; None if nothing is known
            about new events.

        Raises:
            InputError: no listening connection is possible until a setting is corrected.
        """
        if self._is_closed:
            raise StoreClosed
        if self._task is None or self._task.done():
            self._task = independent_task(self._run(), name="eventstore-notifier")
        future: asyncio.Future[EventBatch | None] = self._loop.create_future()
        self._waiting[future] = Interest(seen, limit, scope if limit else None)
        if self._watcher is not None:
            self._watcher.waiter_added(seen)
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    async def close(self) -> None:
        """Stop listening."""
        self._is_closed = True
        await cancel_and_wait(task for task in (self._task, self._opening) if task is not None)
        self._task = self._opening = None
        self._end_waits()  # also if the task was cancelled before its first step

    def interest(self) -> Interest | None:
        """Return what the waiting consumers need together; None if no consumer waits."""
        interests = self._waiting.values()
        if not interests:
            return None
        seen = min(each.seen for each in interests)
        scopes = {each.scope for each in interests if each.limit}
        if len(scopes) != 1:
            return Interest(seen, 1, None)  # events of one scope are not for the others
        return Interest(seen, max(each.limit for each in interests), *scopes)

    def notify(self) -> None:
        """End the waits of the consumers that read by themselves."""
        for future, interest in list(self._waiting.items()):
            if not interest.limit:
                self._finish(future, None)

    def deliver(self, batch: EventBatch) -> bool:
        """End the waits of the consumers that have not seen the whole batch. Return False if there is none.

        A consumer with another scope, or that has not seen all events before the batch, gets it without events.
        """
        behind = [(future, interest) for future, interest in self._waiting.items() if interest.seen < batch.position]
        for future, interest in behind:
            fits = interest.seen >= batch.after and interest.scope == batch.scope
            self._finish(future, batch if fits else batch.without_events())
        return bool(behind)

    def _finish(self, future: asyncio.Future[EventBatch | None], result: EventBatch | Exception | None) -> None:
        del self._waiting[future]
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _end_waits(self, error: Exception | None = None) -> None:
        for future in list(self._waiting):
            self._finish(future, error)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._listen()
                except InputError as error:
                    self._end_waits(error)
                    return
                except (psycopg.Error, EventStoreError, OSError) as error:
                    self._log(error)
                self._end_waits()  # all consumers poll until there is a connection again
                await asyncio.sleep(RECONNECT_SECONDS)
                self._end_waits()
        finally:
            self._end_waits()

    async def _listen(self) -> None:
        watcher = LogWatcher(self, self._throttle)
        listener = await self._open(watcher)
        try:
            self._logged = ""
            self._watcher = watcher
            await watcher.run(listener)
        finally:
            self._watcher = None
            listener.close()

    async def _open(self, watcher: LogWatcher) -> Listener:
        """Open a connection, while the consumers poll."""
        opening = self._opening = asyncio.create_task(self._open_listener(watcher.notified))
        try:
            while not opening.done():
                await asyncio.wait([opening], timeout=RECONNECT_SECONDS)
                if not opening.done():
                    self._end_waits()
            return opening.result()
        except BaseException:
            opening.add_done_callback(_close_unused)  # it may end with a connection although it is cancelled
            opening.cancel()
            raise

    def _log(self, error: Exception) -> None:
        """Log an error, unless it is the one that was logged last."""
        if str(error) != self._logged:
            self._logged = str(error)
            log.warning("listening: %s", error, extra={"event": "listening_failed"})


def _close_unused(opening: asyncio.Task[Listener]) -> None:
    """Close a listening connection that was opened after all."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class LogWatcher:
    """Looks for new events on one listening connection, from its beginning to its end."""

    def __init__(self, notifier: Notifier, throttle: PollThrottle) -> None:
        self._notifier = notifier
        self._throttle = throttle
        self._loop = asyncio.get_running_loop()
        self._has_consumer = asyncio.Event()
        self._pause: asyncio.Future[None] | None = None
        self._look_result: asyncio.Future[list[Found]] | None = None
        self._is_waiting = False  # appends notify this connection
        self._must_look = False  # there may be new events since the last look
        self._covered = 0  # every event after this position since the last look was notified
        self._has_gap = False
        self._has_delivered = False
        self._back_off = 0.0

    def notified(self) -> None:
        """Handle a notification, or the end of the connection."""
        self._must_look = True
        if self._pause is not None and not self._pause.done():
            if self._is_waiting:
                self._notifier.notify()
                if self._look_result is None and self._notifier.interest() is not None:
                    self._look_result = self._begin_look()  # before any other task runs
            self._pause.set_result(None)

    def waiter_added(self, seen: int) -> None:
        """Handle a new waiting consumer that has seen the log up to a position."""
        self._has_consumer.set()
        if seen < self._covered:
            self._end_pause()

    async def run(self, listener: Listener) -> None:
        """Look for new events until the connection fails."""
        self._listener = listener
        while True:
            await self._await_consumer()
            if pause := self._throttle.pause(self._loop.time()):
                await self._end_wait()
                await asyncio.sleep(pause)
            await self._round()

    async def _await_consumer(self) -> None:
        if await self._has_consumer_within(_END_WAIT_SECONDS):
            return
        await self._end_wait()  # busy consumers need no notifications
        while not await self._has_consumer_within(POLL_SECONDS):
            await self._listener.check()

    async def _has_consumer_within(self, seconds: float) -> bool:
        if self._notifier.interest() is not None:
            return True
        self._has_consumer.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._has_consumer.wait()
        except TimeoutError:
            return False
        return True

    async def _round(self) -> None:
        interest = self._notifier.interest()
        if interest is None:
            return
        await self._listener.set_scope(interest.scope)
        if self._is_waiting and not self._must_look and interest.seen >= self._covered:
            await self._wait(POLL_SECONDS)
        elif await self._look():
            self._back_off = 0.0
        elif self._has_gap:
            await self._wait_and_back_off()  # for an append in flight, which may notify or not
        elif not self._is_waiting:
            await self._begin_wait()

    async def _look(self) -> bool:
        """Look for new events. Return whether some were delivered."""
        await (self._look_result or self._begin_look())
        self._look_result = None
        if self._has_gap and not self._has_delivered:
            horizon = await self._listener.horizon()
            if self._notifier.interest() is not None:
                await self._begin_look(horizon)
        self._throttle.spend(self._loop.time())
        return self._has_delivered

    def _begin_look(self, horizon: int = 0) -> asyncio.Future[list[Found]]:
        seen, limit, _ = self._notifier.interest() or Interest(0, 1, None)
        self._must_look = False
        return self._listener.look(seen, limit, partial(self._on_found, seen, limit, horizon))

    def _on_found(self, after: int, limit: int, horizon: int, found: list[Found]) -> None:
        """Deliver the events that are final."""
        position, number = after, 0
        for next_position, _ in found:
            if next_position > max(horizon, position + 1):
                break
            position = next_position
            number += 1
        self._covered = position
        self._has_gap = number < len(found)
        is_full = len(found) == limit
        self._must_look = self._must_look or self._has_gap or is_full
        events = [event for _, event in found[:number] if event is not None]
        batch = EventBatch(after, position, events, not is_full, self._listener.scope)
        self._has_delivered = number > 0 and self._notifier.deliver(batch)

    async def _begin_wait(self) -> None:
        interest = self._notifier.interest()
        if interest is None:
            return
        self._must_look = False
        if await self._listener.begin_wait(interest.seen):
            self._is_waiting = True
            self._covered = interest.seen
            self._back_off = 0.0
        else:
            await self._wait_and_back_off()  # an append is in flight, or there is an event

    async def _end_wait(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            await self._listener.end_wait()

    async def _wait_and_back_off(self) -> None:
        if self._back_off:
            await self._wait(self._back_off)
        self._back_off = min(max(self._back_off * 2, _FIRST_BACK_OFF_SECONDS), _MAX_BACK_OFF_SECONDS)

    async def _wait(self, seconds: float) -> None:
        """Wait for a notification, for a consumer that has seen less, or until it is time to poll."""
        self._pause = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._end_pause)
        try:
            await self._pause
        finally:
            timer.cancel()
            self._pause = None
        if self._look_result is not None:
            await self._look()

    def _end_pause(self) -> None:
        self._must_look = True
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)
