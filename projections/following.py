"""One projection as a worker follows it: what its tables are made by, how large batches are, when to try again."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from projections.apply import Applied, Applier
from projections.parking import PERSISTENT_FAILURES
from projections.projection import Projection

FIRST_SIZE = 500
QUICK_SECONDS, SLOW_SECONDS = 0.02, 0.1
"""A full batch that takes less than the first is followed by a larger one; one that takes longer than the second, by
a smaller one: rows become visible batch by batch, and a batch holds its checkpoints while it lasts, for which a read
of one's own writes may have to wait. Batches of 500 to 1000 events cost no more per event than larger ones."""
LEAST_SIZE = 100
"""No batch is made smaller on account of its time: if so few take long, the machine is busy, not the batch large."""


class Following:
    """What a worker knows of a projection.

    Attributes:
        projection: as this version has it.
        size: events that the next batch goes over at most.
        is_behind: whether its latest batch was full, so that there may be more.
        is_known: whether it is known what its tables are made by; if not, only a rebuild helps.
    """

    def __init__(self, projection: Projection, most: int) -> None:
        self.projection = projection
        self.size = min(FIRST_SIZE, most)
        self._most = most
        self._made_by: Projection | None = None
        self.is_behind = False
        self.is_known = True
        self._pause = 0.0
        self._failures = 0
        self._due_at = 0.0

    @property
    def due_in(self) -> float:
        """Seconds until it is to be tried again; not positive if it may be at once."""
        return self._due_at - monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it may be tried."""
        return self.due_in <= 0

    @property
    def is_quick(self) -> bool:
        """Whether its small batches can go the quick way: its tables are made by the text that this version has."""
        return self._made_by is self.projection and self.projection.is_built_in

    async def apply(self, applier: Applier, shares: Sequence[int]) -> int:
        """Applies the next batch for these shares.

        Returns:
            The events that it went over.
        """
        if self._made_by is None:
            self._made_by = await applier.register(self.projection)
            self.is_known = self._made_by is not None
        size = self.size
        applied = None
        if self._made_by is not None:
            is_persistent = self._failures >= PERSISTENT_FAILURES
            applied = await applier.apply(self._made_by, shares=shares, size=size, is_persistent=is_persistent)
            self._pause, self._failures = 0.0, 0
        events = 0 if applied is None else applied.events
        self.is_behind = events >= size
        if applied is not None:
            self._adapt(applied)
        return events

    def forget(self) -> None:
        """The tables are made by something else now."""
        self._made_by = None

    def put_off(self, first: float, longest: float) -> None:
        """Tries again later, and ever later while it fails; in seconds."""
        self.is_behind = False
        self._failures += 1
        self._pause = min(self._pause * 2, longest) if self._pause else first
        self._due_at = monotonic() + self._pause

    def _adapt(self, applied: Applied) -> None:
        if applied.seconds > SLOW_SECONDS:
            self.size = min(self.size, max(self.size // 2, LEAST_SIZE))
        elif applied.events >= self.size and applied.seconds < QUICK_SECONDS:
            self.size = min(self.size * 2, self._most)
