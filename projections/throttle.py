"""The throttle: projecting takes a part of the time while others append."""

from __future__ import annotations

import asyncio
from time import monotonic

from eventstore import EventStore
from eventstore.read import horizon

BUSY_EVENTS_PER_SECOND = 100
"""From so many events on somebody is held up, unless the caller says otherwise."""
PART = 0.15
"""Of the time that is worked then, likewise."""
LONGEST_PAUSE_SECONDS = 5.0
THROTTLED_SIZE = 10_000
"""Events of a batch then, so that it lasts a fraction of a second."""


class Throttle:
    """Watches how fast the log grows, and pauses accordingly.

    Attributes:
        size: events that the next batch should go over at most; None where it may be as large as it can.
    """

    def __init__(
        self, store: EventStore, position: int, busy: int = BUSY_EVENTS_PER_SECOND, part: float = PART
    ) -> None:
        """Begins to watch.

        Args:
            position: up to which the log is final now.
            busy: events a second from which on it gives way.
            part: of the time that it works then.
        """
        self._store = store
        self._busy = busy
        self._part = part
        self._position = position
        self._looked_at = monotonic()
        self.size: int | None = None

    async def after(self, worked: float) -> float:
        """Pauses, if somebody appends.

        Args:
            worked: seconds.

        Returns:
            Seconds that it has paused.
        """
        position = await horizon(self._store.connections.projector)
        now = monotonic()
        is_busy = position - self._position > self._busy * (now - self._looked_at)
        pause = min(worked * (1 / self._part - 1), LONGEST_PAUSE_SECONDS) if is_busy else 0.0
        self.size = THROTTLED_SIZE if is_busy else None
        await asyncio.sleep(pause)
        self._position, self._looked_at = position, now
        return pause
