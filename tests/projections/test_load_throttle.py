"""Background work pauses under write load, and only then."""

from __future__ import annotations

from time import monotonic
from uuid import uuid4

from eventstore import EventStore, MessageAdded
from projections.load_throttle import THROTTLED_BATCH_SIZE, LoadThrottle

MESSAGE = MessageAdded(role="user", content="x")


async def test_work_does_not_pause_if_nobody_appends(store: EventStore) -> None:
    result = await store.append(uuid4(), [MESSAGE] * 500)
    throttle = LoadThrottle(store, result.position, 100, 0.15)
    assert (await throttle.pause(60.0), throttle.batch_size) == (0.0, None)


async def test_work_pauses_while_somebody_appends_and_not_afterwards(store: EventStore) -> None:
    throttle = LoadThrottle(store, 0, 100, 0.15)
    await store.append(uuid4(), [MESSAGE] * 2000)
    began = monotonic()
    paused = await throttle.pause(0.01)
    assert paused == 0.01 * (1 / 0.15 - 1)
    assert monotonic() - began >= paused * 0.99
    assert throttle.batch_size == THROTTLED_BATCH_SIZE
    assert (await throttle.pause(0.01), throttle.batch_size) == (0.0, None)
