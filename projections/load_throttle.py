"""The throttle of background work: under write load, it works only a part of the time."""

from __future__ import annotations

import asyncio
from time import monotonic

from eventstore import EventStore
from eventstore.read import horizon

MAX_PAUSE_SECONDS = 5.0
THROTTLED_BATCH_SIZE = 10_000
"""Events of a throttled batch, so that it lasts a fraction of a second."""


class LoadThrottle:
    """A throttle by the write load: it measures how fast the log grows.

    Args:
        position: the position up to which the log is final now.
        busy_events_per_second: the growth of the log from which on the work is throttled.
        share: the part of the time that throttled work takes.

    Attributes:
        batch_size: events that the next batch should cover at most; None if it may be as large as it can.
    """

    def __init__(self, store: EventStore, position: int, busy_events_per_second: int, share: float) -> None:
        self._store = store
        self._position = position
        self._measured_at = monotonic()
        self._busy_events_per_second = busy_events_per_second
        self._share = share
        self.batch_size: int | None = None

    async def pause(self, worked: float) -> float:
        """Pause if the log grows fast. Return the seconds of the pause.

        Args:
            worked: seconds of work since the last pause.
        """
        position = await horizon(self._store.connections.projector)
        now = monotonic()
        is_busy = position - self._position > self._busy_events_per_second * (now - self._measured_at)
        pause = min(worked * (1 / self._share - 1), MAX_PAUSE_SECONDS) if is_busy else 0.0
        self.batch_size = THROTTLED_BATCH_SIZE if is_busy else None
        await asyncio.sleep(pause)
        self._position, self._measured_at = position, now
        return pause
