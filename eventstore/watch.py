"""The watch over the log on one listening connection: looking, lying down, sleeping, getting up.

The order of the steps is what makes it right, and is argued in ``docs/concepts/order.md``. A notification is answered
by one look for new events, sent before anything else happens. Events that follow the last one seen without a gap are
final, for their positions are taken; where there is a gap, the horizon tells.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple, Protocol

from eventstore.caller import Whose
from eventstore.events import Event
from eventstore.listener import POLL_SECONDS, Found, Listener
from eventstore.pace import Pace

_GRACE_SECONDS = 0.005  # who was woken and comes back so soon finds the connection still lying
_BACK_OFF_FIRST, _BACK_OFF_LONGEST = 0.001, 0.05


class Demand(NamedTuple):
    """What those who wait want.

    Attributes:
        seen: the lowest position that one of them has seen.
        limit: how many events at most.
        whose: as whom to look; None is as nobody, who learns only that something is there.
    """

    seen: int
    limit: int
    whose: Whose | None


class News(NamedTuple):
    """What has come.

    Attributes:
        after: the position behind which was looked.
        position: up to which the log is final, and an event stands there.
        events: those between that can be seen, in order.
        are_all: whether nothing was left behind them.
        whose: as whom was looked; None is as nobody.
    """

    after: int
    position: int
    events: list[Event]
    are_all: bool
    whose: Whose | None

    def without_events(self) -> News:
        """For those who have to look for themselves."""
        return self._replace(events=[], are_all=False, whose=None)


class Audience(Protocol):
    """Those for whom is watched."""

    def demand(self) -> Demand | None:
        """What is wanted now; None where nobody waits."""

    def rouse(self) -> None:
        """Told that something has come, before it is known what."""

    def hand_out(self, news: News) -> bool:
        """Takes what has come; False where nobody wanted it."""


class Watch:
    """What is known on one connection, from its beginning to its end."""

    def __init__(self, audience: Audience, pace: Pace) -> None:
        self._audience = audience
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()
        self._alarm: asyncio.Future[None] | None = None
        self._looking: asyncio.Future[list[Found]] | None = None
        self._is_lying = False
        self._stirred = False  # something may have come since the last look
        self._covered = 0  # whatever came beyond this position since the last look has been notified
        self._has_gap = False
        self._handed_out = False
        self._back_off = 0.0

    def heard(self) -> None:
        """An append has ended, or the connection has."""
        self._stirred = True
        if self._alarm is not None and not self._alarm.done():
            if self._is_lying:
                self._audience.rouse()
                if self._looking is None and self._audience.demand() is not None:
                    self._looking = self._begin_look()
            self._alarm.set_result(None)

    def came(self, seen: int) -> None:
        """Somebody waits who has seen the log up to this position."""
        self._came.set()
        if seen < self._covered:
            self._stirred = True
            self._ring()

    async def keep(self, listener: Listener) -> None:
        """Watches until the connection fails.

        Raises:
            EventStoreError: what happened to it.
        """
        self._listener = listener
        while True:
            await self._until_somebody_waits()
            if pause := self._pace.pause(self._loop.time()):
                await self._get_up()
                await asyncio.sleep(pause)
            await self._round()

    async def _round(self) -> None:
        demand = self._audience.demand()
        if demand is None:
            return
        await self._listener.turn_to(demand.whose)
        if self._is_lying and not self._stirred and demand.seen >= self._covered:
            await self._sleep(POLL_SECONDS)
            return
        if await self._look():
            self._back_off = 0.0
        elif self._has_gap:
            await self._wait_a_little()  # for an append in flight, which may notify or not
        elif not self._is_lying:
            await self._lie_down()

    async def _look(self) -> bool:
        """Whether something was handed out."""
        await (self._looking or self._begin_look())
        self._looking = None
        if self._has_gap and not self._handed_out:
            final = await self._listener.horizon()
            if self._audience.demand() is not None:
                await self._begin_look(final)
        self._pace.spend(self._loop.time())
        return self._handed_out

    def _begin_look(self, final: int = 0) -> asyncio.Future[list[Found]]:
        seen, limit, _ = self._audience.demand() or Demand(0, 1, None)
        self._stirred = False
        return self._listener.look(seen, limit, partial(self._found, seen, limit, final))

    def _found(self, seen: int, limit: int, final: int, found: list[Found]) -> None:
        """Hands out what is final: at once, in the callback that brings it."""
        after = seen
        number = 0
        for position, _ in found:
            if position > max(final, seen + 1):
                break
            seen = position
            number += 1
        self._covered = seen
        self._has_gap = number < len(found)
        is_full = len(found) == limit
        self._stirred = self._stirred or self._has_gap or is_full
        events = [event for _, event in found[:number] if event is not None]
        news = News(after, seen, events, not is_full, self._listener.whose)
        self._handed_out = number > 0 and self._audience.hand_out(news)

    async def _lie_down(self) -> None:
        demand = self._audience.demand()
        if demand is None:
            return
        self._stirred = False
        if await self._listener.lie_down(demand.seen):
            self._is_lying = True
            self._covered = demand.seen
            self._back_off = 0.0
        else:
            await self._wait_a_little()  # an append is in flight, or its event already waits

    async def _get_up(self) -> None:
        if self._is_lying:
            self._is_lying = False
            await self._listener.get_up()

    async def _until_somebody_waits(self) -> None:
        if await self._comes_within(_GRACE_SECONDS):
            return
        await self._get_up()  # a consumer that is busy needs no waking
        while not await self._comes_within(POLL_SECONDS):
            await self._listener.touch()

    async def _comes_within(self, seconds: float) -> bool:
        if self._audience.demand() is not None:
            return True
        self._came.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._came.wait()
        except TimeoutError:
            return False
        return True

    async def _wait_a_little(self) -> None:
        if self._back_off:
            await self._sleep(self._back_off)
        self._back_off = min(max(self._back_off * 2, _BACK_OFF_FIRST), _BACK_OFF_LONGEST)

    async def _sleep(self, seconds: float) -> None:
        """Until something is heard, somebody comes who has seen less, or the time to look anyway."""
        self._alarm = self._loop.create_future()
        timer = self._loop.call_later(seconds, self._time_to_look)
        try:
            await self._alarm
        finally:
            timer.cancel()
            self._alarm = None
        if self._looking is not None:
            await self._look()

    def _time_to_look(self) -> None:
        self._stirred = True
        self._ring()

    def _ring(self) -> None:
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)
