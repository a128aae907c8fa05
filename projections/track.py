"""One connection of a worker, and the projections that it applies there, one after the other.

A single append wakes the worker, and its rows are visible at once. In a stream nobody wakes it, which would cost the
appends more than the rounds do: it looks by itself every few milliseconds, as long as there is something. Rounds take
from the appends what the machine could give them, so in a dense stream the projections work a tenth of the time, in
batches that become the larger for it. What takes long comes after the others, looks more seldom, and gives way to a
dense stream as a rebuild does: it falls behind, and catches up when the stream is thinner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic

from eventstore import EventStore
from eventstore.database.connection import Connection
from eventstore.ending import end
from eventstore.errors import ConnectionLost, EventStoreError, ProjectionChanged
from eventstore.pace import Pace
from eventstore.read import horizon
from projections.apply import Applier
from projections.checkpoints import applied_position
from projections.following import Following
from projections.giving_way import GivingWay
from projections.projection import Projection
from projections.quick import QUICK_EVENTS, Quick, Step
from projections.shares import Shares

log = logging.getLogger(__name__)

RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS = 0.25, 10.0
"""After an error that may pass: a server that is away, a deadlock, a full disk. Doubled while it does not."""

LOOK_SECONDS = 2.0
"""How often a worker looks for shares whose worker is gone."""

DENSE_EVENTS_PER_SECOND, DENSE_SECONDS = 2000, 1.0
"""A stream is dense from so many events on, over so long a time: a burst is none."""

FEW_EVENTS = 1
"""More in a round are a stream."""
LOOK_IN_STREAM_SECONDS, LOOK_IN_STREAM_APART_SECONDS = 0.012, 0.25
"""From the beginning of a round in a stream to that of the next."""

PART_APART = 0.05
"""Of the time that what takes long works in a dense stream."""

AFTER_YOU_SECONDS = 0.005
"""What takes long begins so much later than the others, which are done by then if there is little to do."""


class Track:
    """Follows the log with some projections.

    Attributes:
        connection: that its batches go over.
        has_applied: whether a round has succeeded.
    """

    def __init__(
        self,
        store: EventStore,
        applier: Applier,
        projections: Sequence[Projection],
        batch_size: int,
        *,
        is_apart: bool,
    ) -> None:
        """A track that has not begun.

        Args:
            is_apart: whether it is for what takes long, and steps back for the others.
        """
        self._is_apart = is_apart
        self._store = store
        self._applier = applier
        in_order = sorted(projections, key=lambda one: not one.is_awaited)
        self._followed = [Following(one, min(batch_size, one.largest_batch)) for one in in_order]
        self.connection: Connection = applier.connection
        self._quick = Quick(self.connection, min(batch_size, QUICK_EVENTS))
        self._pace = Pace(monotonic())
        self._counted, self._counted_from, self._dense = 0, monotonic(), False
        self._is_behind = False
        self.has_applied = False

    async def follow(self, shares: Shares) -> None:
        """Applies what comes, until it fails.

        Args:
            shares: those of its worker. The track that is not apart looks after them, over its connection.
        """
        settled_at = monotonic()
        way = GivingWay(self._store, await horizon(self._store.parts.projector), DENSE_EVENTS_PER_SECOND, PART_APART)
        between = LOOK_IN_STREAM_APART_SECONDS if self._is_apart else LOOK_IN_STREAM_SECONDS
        while True:
            if self._is_apart:
                await asyncio.sleep(AFTER_YOU_SECONDS)
            elif monotonic() - settled_at >= LOOK_SECONDS:
                settled_at = monotonic()
                await shares.settle()
            began = monotonic()
            events, seen = await self._round(shares.held)
            now = monotonic()
            is_dense = self._is_dense(now, events)
            if self._is_apart:
                await way.after(now - began)
            elif is_dense:
                self._pace.spend(now, now - began)
            if self._is_behind:
                continue
            if is_dense and not self._is_apart:
                await asyncio.sleep(self._pace.pause(now))
            if events > FEW_EVENTS:
                await asyncio.sleep(began + between - monotonic())
            else:
                await self._sleep(shares.held, seen)

    def _is_dense(self, now: float, events: int) -> bool:
        self._counted += events
        if now - self._counted_from >= DENSE_SECONDS:
            self._dense = self._counted >= DENSE_EVENTS_PER_SECOND * (now - self._counted_from)
            self._counted, self._counted_from = 0, now
        return self._dense

    async def _round(self, shares: Sequence[int]) -> tuple[int, int | None]:
        """The next batch of each.

        Returns:
            The events of the log that were gone over, and the position that all have applied, where that is known.
        """
        due = [one for one in self._followed if one.is_due] if shares else []
        steps = await self._step(due, shares)
        events = max((step.events for step in steps.values()), default=0)
        rest = [one for one in due if one not in steps or steps[one].events >= self._quick.size]
        for one in rest:
            events = max(events, await self._apply(one, shares))
        self._is_behind = any(one.is_behind for one in rest)
        return events, None if rest or not steps else min(step.position for step in steps.values())

    async def _step(self, due: Sequence[Following], shares: Sequence[int]) -> dict[Following, Step]:
        """The next small batch of all that can go the quick way; nothing where one of them fails."""
        quick = [one for one in due if one.is_quick]
        if self._is_behind or not quick:
            return {}
        try:
            steps = await self._quick.apply([one.projection for one in quick], shares)
        except ConnectionLost:
            raise
        except EventStoreError as error:
            if self.connection.closed:
                raise
            log.debug("each projection by itself: %s", error)
            return {}
        self.has_applied = True
        return dict(zip(quick, steps, strict=True))

    async def _apply(self, one: Following, shares: Sequence[int]) -> int:
        """One projection that cannot go on does not stop the others."""
        try:
            events = await one.apply(self._applier, shares)
            self.has_applied = True
            return events
        except ProjectionChanged:
            one.forget()
        except ConnectionLost:
            raise
        except EventStoreError as error:
            if self.connection.closed:
                raise
            one.put_off(RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS)
            log.warning("projection %s: %s", one.projection.name, error)
        return 0

    async def _sleep(self, shares: Sequence[int], seen: int | None) -> None:
        """Until there are events, or it is time to look after the other workers."""
        due = min([LOOK_SECONDS, *(one.due_in for one in self._followed if one.due_in > 0)])
        awake = [one.projection for one in self._followed if one.is_due and one.is_known]
        if not shares or not awake:
            await asyncio.sleep(due)
            return
        if seen is None:
            seen = await applied_position(self._store, awake, shares)
        waiting = asyncio.create_task(self._store.wait(seen))
        try:
            await asyncio.wait((waiting,), timeout=due)
            if waiting.done():
                await waiting
        finally:
            await end((waiting,))
