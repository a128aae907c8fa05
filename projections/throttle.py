"""The throttle of background work: under write load it works only a part of the time."""

from __future__ import annotations

import asyncio
from time import monotonic

from eventstore import EventStore
from eventstore.read import horizon

BUSY_EVENTS_PER_SECOND = 100
"""The write load from which on the work is throttled, by default."""
SHARE = 0.15
"""The part of the time that the throttled work takes, by default."""
LONGEST_PAUSE_SECONDS = 5.0
THROTTLED_SIZE = 10_000
"""Events of a throttled batch, so that it lasts a fraction of a second."""


class Throttle:
    """A throttle that measures how fast the log grows.

    Args:
        position: up to which the log is final now.
        busy: events per second from which on the work is throttled.
        share: the part of the time that throttled work takes.

    Attributes:
        size: events that the next batch should cover at most; None if it may be as large as it can.
    """

    def __init__(
        self, store: EventStore, position: int, busy: int = BUSY_EVENTS_PER_SECOND, share: float = SHARE
    ) -> None:
        self._store = store
        self._busy = busy
        self._share = share
        self._position = position
        self._measured_at = monotonic()
        self.size: int | None = None

    async def pause(self, worked: float) -> float:
        """Pause if the log grows fast.

        Args:
            worked: seconds of work since the last pause.

        Returns:
            The seconds that it has paused.
        """
        position = await horizon(self._store.connections.projector)
        now = monotonic()
        is_busy = position - self._position > self._busy * (now - self._measured_at)
        pause = min(worked * (1 / self._share - 1), LONGEST_PAUSE_SECONDS) if is_busy else 0.0
        self.size = THROTTLED_SIZE if is_busy else None
        await asyncio.sleep(pause)
        self._position, self._measured_at = position, now
        return pause
