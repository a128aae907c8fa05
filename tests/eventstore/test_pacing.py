"""Events are replayed with the pauses between their times, divided by the speed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from eventstore import Event, EventStore, MessageAdded
from eventstore.errors import InputError
from eventstore.pacing import paced

pytestmark = pytest.mark.shared_database


async def at(*seconds: float) -> AsyncIterator[Event]:
    """Events with these times."""
    for number, second in enumerate(seconds, 1):
        time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        yield Event(number, time, number, 1, uuid4(), uuid4(), "t", "x", "", {}, {}, None, b"")


async def arrivals(events: AsyncIterator[Event], busy: float = 0, **pace: float | None) -> list[float]:
    """Return the times, in seconds, at which events arrive at a consumer that is busy with each of them."""
    clock = asyncio.get_running_loop().time
    start, times = clock(), []
    async for _ in paced(events, **pace):  # type: ignore[arg-type]
        times.append(clock() - start)
        if busy:
            await asyncio.sleep(busy)
    return times


async def test_events_arrive_at_the_pace_of_their_times() -> None:
    times = await arrivals(at(0, 1, 1, 3), speed=20)
    assert times == sorted(times)
    for arrived, due in zip(times, (0, 0.05, 0.05, 0.15), strict=True):
        assert arrived >= due - 0.002


async def test_long_pauses_are_cut_and_an_infinite_speed_makes_none() -> None:
    assert 0.09 <= (await arrivals(at(0, 3600, 7200), longest_pause=0.05))[-1] < 60
    assert (await arrivals(at(0, 3600, 7200), speed=math.inf))[-1] < 60
    assert (await arrivals(at(0, 3600), longest_pause=0))[-1] < 60


async def test_a_clock_that_stepped_back_makes_no_pause() -> None:
    assert (await arrivals(at(0, -3600, -3599), speed=20))[-1] < 60


async def test_a_slow_consumer_catches_up() -> None:
    """The consumer is slower than the first event allows, and in time again for the last one."""
    assert (await arrivals(at(0, 0.01, 0.02, 0.5), busy=0.1))[-1] < 0.5 + 0.1


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "2", True])
async def test_a_speed_is_above_nothing(wrong: float) -> None:
    with pytest.raises(InputError, match="speed"):
        await arrivals(at(0), speed=wrong)
    if wrong:
        with pytest.raises(InputError, match="longest_pause"):
            await arrivals(at(0), longest_pause=wrong)


async def test_a_store_replays_a_conversation_and_the_log(store: EventStore) -> None:
    trip = uuid4()
    for text in ("one", "two"):
        await store.append(trip, [MessageAdded(role="user", content=text)])
    of_trip = [event async for event in store.replay(trip, speed=math.inf)]
    of_log = [event async for event in store.replay(speed=math.inf, types=["message.added"])]
    assert of_trip == of_log == [event async for event in store.read(trip)]
