"""The worker: follows the log and applies it to the read tables, partitioned among processes.

A worker holds one advisory lock for as long as its session lives, shared, so that all can be counted; and one, alone,
for each partition that it follows. Everybody takes what is free, and gives up what is more than an even part. The locks
of a worker that dies go with its session, and the others find its partitions free when they look again. The locks only
spread the work: what keeps two workers from applying one batch twice are the checkpoints (:mod:`projections.apply`).

A single append wakes the worker, and its rows are visible at once. In a stream nobody wakes it, which would cost the
appends more than the rounds do: it looks by itself every few milliseconds, as long as there is something. Rounds take
from the appends what the machine could give them, so in a dense stream the projections work a tenth of the time, in
batches that become the larger for it. What takes long comes after the others, looks more seldom, and gives way to a
dense stream as a rebuild does: it falls behind, and catches up when the stream is thinner.

Any number may run, on any machine. Each follows some partitions of the conversations (:mod:`projections.worker`), all
of them where it is alone, and looks every other second whether one of the others has come or gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import monotonic

from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import (
    ConnectionLost,
    EventStoreError,
    NotCaughtUp,
    PermissionDenied,
    ProjectionChanged,
    SchemaError,
    ServerError,
    ServerUnreachable,
    SettingsError,
    translated,
)
from eventstore.notifier import PollThrottle
from eventstore.read import horizon
from projections.apply import BATCH_SIZE, SMALL_BATCH_EVENTS, Applied, Applier, SmallBatches, Step
from projections.checkpoints import applied_position
from projections.custom_projections import prepare
from projections.parking import PERSISTENT_FAILURES
from projections.projection import PARTITIONS, PROJECTIONS, Projection
from projections.rebuild import Rebuild
from projections.throttle import Throttle

# Which worker follows which partitions of the conversations, without anybody configuring it

_JOIN = query("projections", "join_workers")
_COUNT = query("projections", "count_workers")
_TAKE = query("projections", "take_partitions")
_GIVE = query("projections", "release_partitions")


class Partitions:
    """The partitions of one worker."""

    def __init__(self, connection: Connection) -> None:
        """Locks belong to the session of the connection and end with it."""
        self._connection = connection
        self._has_joined = False
        self.held: list[int] = []

    async def settle(self) -> bool:
        """Takes and gives up until this worker has its part of what is free.

        Returns:
            Whether anything changed.
        """
        with translated():
            if not self._has_joined:
                await self._connection.execute(_JOIN)
                self._has_joined = True
            row = await (await self._connection.execute(_COUNT)).fetchone()
            assert row is not None
            part = -(-PARTITIONS // max(row[0], 1))
            if len(self.held) > part:
                await self._connection.execute(_GIVE, {"partitions": self.held[part:]})
                self.held = self.held[:part]
                return True
            if len(self.held) == part:
                return False
            parameters = {"held": self.held, "wanted": part - len(self.held)}
            taken = await (await self._connection.execute(_TAKE, parameters)).fetchall()
            self.held = sorted([*self.held, *(partition for (partition,) in taken)])
            return bool(taken)


# Rebuilding, beside a running worker, read tables that another version of their projection made

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until it is looked again whether something is outdated still."""

log = logging.getLogger(__name__)

_OUTDATED = query("projections", "outdated")


class AutoRebuild:
    """Looks when its worker begins to work; what is outdated it rebuilds, one after the other, until nothing is."""

    def __init__(self, store: EventStore, projections: Sequence[Projection]) -> None:
        self._store = store
        self._projections = projections
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Begins, the first time that it is called."""
        if self._task is None:
            self._task = asyncio.create_task(self._renew(), name="eventstore-renewal")

    async def close(self) -> None:
        """Ends what is under way; it is resumed by the next worker."""
        if self._task is not None:
            await cancel_and_wait((self._task,))

    async def _renew(self) -> None:
        pause, said = FIRST_PAUSE, ""
        while True:
            try:
                await self._renew_all()
                return
            except EventStoreError as error:  # perhaps another worker is at it: then it will be done
                if str(error) != said:
                    said = str(error)
                    log.warning("rebuilding: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _renew_all(self) -> None:
        names = [projection.name for projection in self._projections]
        sources = [projection.source for projection in self._projections]
        rows = await self._store.connections.projector.fetch(_OUTDATED, {"projections": names, "sources": sources})
        outdated = {name for (name,) in rows}
        for projection in self._projections:
            if projection.name in outdated:
                log.warning("projection %s has changed: its tables are rebuilt", projection.name)
                await Rebuild(self._store, projection).run()


# One projection as a worker follows it: what its tables are made by, how large batches are, when to try again

FIRST_SIZE = 500
QUICK_SECONDS, SLOW_SECONDS = 0.02, 0.1
"""A full batch that takes less than the first is followed by a larger one; one that takes longer than the second, by
a smaller one: rows become visible batch by batch, and a batch holds its checkpoints while it lasts, for which a read
of one's own writes may have to wait. Batches of 500 to 1000 events cost no more per event than larger ones."""
LEAST_SIZE = 100
"""No batch is made smaller on account of its time: if so few take long, the machine is busy, not the batch large."""


class ProjectionProgress:
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

    async def apply(self, applier: Applier, partitions: Sequence[int]) -> int:
        """Applies the next batch for these partitions.

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
            applied = await applier.apply(self._made_by, partitions=partitions, size=size, is_persistent=is_persistent)
            self._pause, self._failures = 0.0, 0
        events = 0 if applied is None else applied.events
        self.is_behind = events >= size
        if applied is not None:
            self._adapt(applied)
        return events

    def forget(self) -> None:
        """The tables are made by something else now."""
        self._made_by = None

    def postpone(self, first: float, longest: float) -> None:
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


# One connection of a worker, and the projections that it applies there, one after the other

RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS = 0.25, 10.0
"""After an error that may pass: a server that is away, a deadlock, a full disk. Doubled while it does not."""

POLL_SECONDS = 2.0
"""How often a worker looks for partitions whose worker is gone."""

DENSE_EVENTS_PER_SECOND, DENSE_SECONDS = 2000, 1.0
"""A stream is dense from so many events on, over so long a time: a burst is none."""

FEW_EVENTS = 1
"""More in a round are a stream."""
LOOK_IN_STREAM_SECONDS, LOOK_IN_STREAM_APART_SECONDS = 0.012, 0.25
"""From the beginning of a round in a stream to that of the next."""

LOW_PRIORITY_PART = 0.05
"""Of the time that what takes long works in a dense stream."""

AFTER_YOU_SECONDS = 0.005
"""What takes long begins so much later than the others, which are done by then if there is little to do."""


class Runner:
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
        is_low_priority: bool,
    ) -> None:
        """A track that has not begun.

        Args:
            is_low_priority: whether it is for what takes long, and steps back for the others.
        """
        self._is_low_priority = is_low_priority
        self._store = store
        self._applier = applier
        in_order = sorted(projections, key=lambda one: not one.is_awaited)
        self._followed = [ProjectionProgress(one, min(batch_size, one.largest_batch)) for one in in_order]
        self.connection: Connection = applier.connection
        self._small_batches = SmallBatches(self.connection, min(batch_size, SMALL_BATCH_EVENTS))
        self._pace = PollThrottle(monotonic())
        self._counted, self._counted_from, self._dense = 0, monotonic(), False
        self._is_behind = False
        self.has_applied = False

    async def follow(self, partitions: Partitions) -> None:
        """Applies what comes, until it fails.

        Args:
            partitions: those of its worker. The track that is not apart looks after them, over its connection.
        """
        settled_at = monotonic()
        way = Throttle(
            self._store, await horizon(self._store.connections.projector), DENSE_EVENTS_PER_SECOND, LOW_PRIORITY_PART
        )
        between = LOOK_IN_STREAM_APART_SECONDS if self._is_low_priority else LOOK_IN_STREAM_SECONDS
        while True:
            if self._is_low_priority:
                await asyncio.sleep(AFTER_YOU_SECONDS)
            elif monotonic() - settled_at >= POLL_SECONDS:
                settled_at = monotonic()
                await partitions.settle()
            began = monotonic()
            events, seen = await self._round(partitions.held)
            now = monotonic()
            is_dense = self._is_dense(now, events)
            if self._is_low_priority:
                await way.after(now - began)
            elif is_dense:
                self._pace.spend(now, now - began)
            if self._is_behind:
                continue
            if is_dense and not self._is_low_priority:
                await asyncio.sleep(self._pace.pause(now))
            if events > FEW_EVENTS:
                await asyncio.sleep(began + between - monotonic())
            else:
                await self._sleep(partitions.held, seen)

    def _is_dense(self, now: float, events: int) -> bool:
        self._counted += events
        if now - self._counted_from >= DENSE_SECONDS:
            self._dense = self._counted >= DENSE_EVENTS_PER_SECOND * (now - self._counted_from)
            self._counted, self._counted_from = 0, now
        return self._dense

    async def _round(self, partitions: Sequence[int]) -> tuple[int, int | None]:
        """The next batch of each.

        Returns:
            The events of the log that were gone over, and the position that all have applied, where that is known.
        """
        due = [one for one in self._followed if one.is_due] if partitions else []
        steps = await self._step(due, partitions)
        events = max((step.events for step in steps.values()), default=0)
        rest = [one for one in due if one not in steps or steps[one].events >= self._small_batches.size]
        for one in rest:
            events = max(events, await self._apply(one, partitions))
        self._is_behind = any(one.is_behind for one in rest)
        return events, None if rest or not steps else min(step.position for step in steps.values())

    async def _step(
        self, due: Sequence[ProjectionProgress], partitions: Sequence[int]
    ) -> dict[ProjectionProgress, Step]:
        """The next small batch of all that can go the quick way; nothing where one of them fails."""
        quick = [one for one in due if one.is_quick]
        if self._is_behind or not quick:
            return {}
        try:
            steps = await self._small_batches.apply([one.projection for one in quick], partitions)
        except ConnectionLost:
            raise
        except EventStoreError as error:
            if self.connection.closed:
                raise
            log.debug("each projection by itself: %s", error)
            return {}
        self.has_applied = True
        return dict(zip(quick, steps, strict=True))

    async def _apply(self, one: ProjectionProgress, partitions: Sequence[int]) -> int:
        """One projection that cannot go on does not stop the others."""
        try:
            events = await one.apply(self._applier, partitions)
            self.has_applied = True
            return events
        except ProjectionChanged:
            one.forget()
        except ConnectionLost:
            raise
        except EventStoreError as error:
            if self.connection.closed:
                raise
            one.postpone(RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS)
            log.warning("projection %s: %s", one.projection.name, error)
        return 0

    async def _sleep(self, partitions: Sequence[int], seen: int | None) -> None:
        """Until there are events, or it is time to look after the other workers."""
        due = min([POLL_SECONDS, *(one.due_in for one in self._followed if one.due_in > 0)])
        awake = [one.projection for one in self._followed if one.is_due and one.is_known]
        if not partitions or not awake:
            await asyncio.sleep(due)
            return
        if seen is None:
            seen = await applied_position(self._store, awake, partitions)
        waiting = asyncio.create_task(self._store.wait(seen))
        try:
            await asyncio.wait((waiting,), timeout=due)
            if waiting.done():
                await waiting
        finally:
            await cancel_and_wait((waiting,))


# The worker: follows the log and keeps the read tables up with it, for as long as it runs

RETRY_AWAY_SECONDS = 1.0
"""The longest pause between attempts to reach a server that is away."""

_NAME = query("projections", "name_worker")


class Worker:
    """Applies new events to the read tables as they come."""

    def __init__(
        self, store: EventStore, projections: Sequence[Projection] = PROJECTIONS, batch_size: int = BATCH_SIZE
    ) -> None:
        """A worker that does not run yet.

        Args:
            batch_size: events in one transaction at most.
        """
        self._store = store
        self._projections = projections
        self._batch_size = batch_size
        self._pause = RETRY_FIRST_SECONDS
        self._told = ""

    async def run(self) -> None:
        """Works until cancelled. A lost server is waited for; an embedded one is started again.

        Read tables that were made by another version of their projection are rebuilt meanwhile.

        Raises:
            SettingsError: ``EVENTSTORE_LISTEN_URL`` leads to another database.
        """
        renewal = AutoRebuild(self._store, self._projections)
        try:
            while True:
                try:
                    await self._follow(renewal)
                except (ConnectionLost, ServerUnreachable) as error:
                    self._on_progress(error)
                    await self._store.revive()
                    self._pause = min(self._pause, RETRY_AWAY_SECONDS)
                except ServerError as error:
                    self._on_progress(error)
                    await self._store.revive()
                except SettingsError:
                    raise  # no time heals it
                except EventStoreError:
                    log.exception("worker")
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, RETRY_LONGEST_SECONDS)
        finally:
            await renewal.close()

    def _on_progress(self, error: ServerError) -> None:
        """Log an error once, until the worker has worked again."""
        if str(error) != self._told:
            self._told = str(error)
            log.warning("worker: %s", error)

    async def _follow(self, renewal: AutoRebuild) -> None:
        """Those that take long, the search above all, have a connection of their own and hold up nobody."""
        await prepare(self._store, self._projections)
        async with AsyncExitStack() as stack:
            tracks = []
            for apart in (False, True):
                applier = await Applier.open(self._store, self._batch_size)
                stack.push_async_callback(applier.close)
                projections = [projection for projection in self._projections if projection.is_low_priority == apart]
                tracks.append(Runner(self._store, applier, projections, self._batch_size, is_low_priority=apart))
            with translated():
                name = f"eventstore worker {socket.gethostname()}:{os.getpid()}"
                await tracks[0].connection.execute(_NAME, {"name": name})
            partitions = Partitions(tracks[0].connection)
            await partitions.settle()
            renewal.look()
            tasks = [asyncio.create_task(runner.follow(partitions)) for runner in tracks]
            try:
                await asyncio.gather(*tasks)  # until one fails
            finally:
                await cancel_and_wait(tasks)
                if any(runner.has_applied for runner in tracks):
                    self._pause = RETRY_FIRST_SECONDS
                    self._told = ""


async def catch_up(store: EventStore, projections: Sequence[Projection] = PROJECTIONS) -> None:
    """Bring the read tables up with the log as it is now, whether or not a worker runs.

    Raises:
        NotCaughtUp: a projection fails, which is not the fault of single conversations. The others are up with the log.
    """
    await prepare(store, projections)
    failure: NotCaughtUp | None = None
    applier = await Applier.open(store)
    try:
        for projection in projections:
            try:
                await _catch_up(applier, projection)
            except (ConnectionLost, ServerUnreachable, SchemaError, PermissionDenied):
                raise
            except EventStoreError as error:
                # The error speaks of a batch of the projection; what callers appended before is stored.
                if failure is None:
                    reason = str(error.__cause__ or error).strip().partition("\n")[0]
                    failure = NotCaughtUp(
                        f"the read tables of the projection {projection.name} are not up with the log: {reason}. "
                        "What was appended is stored; a worker, or the same call, brings them up once the cause is gone"
                    )
                    failure.__cause__ = error
    finally:
        await applier.close()
    if failure is not None:
        raise failure


async def _catch_up(applier: Applier, projection: Projection) -> None:
    while True:
        made_by = await applier.register(projection)
        if made_by is None:
            return None  # only a rebuild can
        try:
            return await applier.catch_up([made_by])
        except ProjectionChanged:
            continue
