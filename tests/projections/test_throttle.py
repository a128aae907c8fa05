"""Whoever fills tables pauses while others append, and only then."""

from __future__ import annotations

from time import monotonic
from uuid import uuid4

from eventstore import EventStore, MessageAdded
from projections.throttle import PART, THROTTLED_SIZE, Throttle

SAID = MessageAdded(role="user", content="x")


async def test_nobody_appends(store: EventStore) -> None:
    result = await store.append(uuid4(), [SAID] * 500)
    way = Throttle(store, result.position)
    assert (await way.after(60.0), way.size) == (0.0, None)


async def test_somebody_appends_and_then_nobody_does(store: EventStore) -> None:
    way = Throttle(store, 0)
    await store.append(uuid4(), [SAID] * 2000)
    began = monotonic()
    paused = await way.after(0.01)
    assert paused == 0.01 * (1 / PART - 1)
    assert monotonic() - began >= paused * 0.99
    assert way.size == THROTTLED_SIZE
    assert (await way.after(0.01), way.size) == (0.0, None)
