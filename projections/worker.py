"""The worker: applies the log to the read tables as it grows, shared among any number of processes on any machines.

Each worker applies some partitions of the conversations, all of them if it is alone; it checks every other second
whether other workers have come or gone. A worker holds one shared advisory lock as long as its session lives, by which
workers are counted, and an exclusive one for each of its partitions. It takes free partitions, and releases those
beyond its fair share. The locks of a worker that dies end with its session. They only spread the work: the checkpoints
keep two workers from applying one batch twice (:mod:`projections.apply`).

A round moves the checkpoints, which writes to the write-ahead log. So a worker that waits makes none without a reason,
such as new events, and only reads the checkpoints every other second: one that was set back is a reason, too.

A single append wakes the worker, so its rows are visible at once. In a stream of appends, notifications would cost the
appends more than polling, so the worker polls every few milliseconds as long as there are events. Its rounds compete
with the appends for the machine: under heavy write load the projections work a tenth of the time, in larger batches.
Low-priority projections run on a connection of their own, after the others, poll less often, and yield under heavy
write load as a rebuild does (:mod:`projections.load_throttle`): they fall behind, and catch up when the load is lower.
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
from eventstore.database.connection import RECONNECT_SECONDS, Connection
from eventstore.database.queries import query
from eventstore.errors import (
    ConnectionLost,
    EventStoreError,
    ProjectionChanged,
    ProjectionPaused,
    ServerError,
    ServerUnreachable,
    SettingsError,
    translated,
)
from eventstore.poll_throttle import PollThrottle
from eventstore.read import horizon
from projections.apply import BATCH_SIZE, SMALL_BATCH_SIZE, Applied, Applier
from projections.custom_projections import create_missing_tables
from projections.failure_isolation import loggable
from projections.load_throttle import LoadThrottle
from projections.projection import PARTITIONS, PROJECTIONS, Projection
from projections.read_your_writes import POSITION
from projections.rebuild import rebuild_outdated

RETRY_MIN_SECONDS, RETRY_MAX_SECONDS = 0.25, 10.0
"""Pauses after an error that may pass, such as a deadlock or a full disk; doubled each time."""

_NAME_WORKER = query("projections", "name_worker")
_log = logging.getLogger(__name__)


class Worker:
    """Applies new events to the read tables until it is cancelled.

    Args:
        batch_size: events in one transaction at most.
    """

    def __init__(
        self, store: EventStore, projections: Sequence[Projection] = PROJECTIONS, batch_size: int = BATCH_SIZE
    ) -> None:
        self._store = store
        self._projections = projections
        self._batch_size = batch_size
        self._rebuilding: asyncio.Task[None] | None = None
        self._pause = RETRY_MIN_SECONDS
        self._logged_error = ""
        self._lost_at: float | None = None

    async def run(self) -> None:
        """Work until cancelled. If the server is lost, wait for it, or start it again if it is an embedded one.

        Meanwhile, tables that were filled by another version of their projection are rebuilt.

        Raises:
            SettingsError: ``EVENTSTORE_LISTEN_URL`` leads to another database.
        """
        try:
            while True:
                try:
                    await self._run_until_error()
                except ServerError as error:
                    is_lost = isinstance(error, ConnectionLost | ServerUnreachable)
                    if str(error) != self._logged_error:  # not again until something was applied
                        self._logged_error = str(error)
                        event = "database_lost" if is_lost else "worker_failed"
                        _log.warning("worker: %s", loggable(error), extra={"event": event})
                    await self._store.ensure_running()
                    if is_lost:
                        self._lost_at = self._lost_at or monotonic()
                        self._pause = min(self._pause, RECONNECT_SECONDS)
                except SettingsError:
                    raise
                except EventStoreError:
                    _log.exception("worker", extra={"event": "worker_failed"})
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, RETRY_MAX_SECONDS)
        finally:
            if self._rebuilding is not None:
                await cancel_and_wait((self._rebuilding,))

    async def _run_until_error(self) -> None:
        """Run two runners, one for the low-priority projections, each over a connection of its own."""
        await create_missing_tables(self._store, self._projections)
        async with AsyncExitStack() as stack:
            runners = []
            for is_low_priority in (False, True):
                applier = await stack.enter_async_context(await Applier.open(self._store, self._batch_size))
                projections = [each for each in self._projections if each.is_low_priority == is_low_priority]
                runners.append(Runner(self._store, applier, projections, self._batch_size, is_low_priority))
            connection = runners[0].connection
            with translated():
                name = f"eventstore worker {socket.gethostname()}:{os.getpid()}"
                await connection.execute(_NAME_WORKER, {"name": name})
            partitions = Partitions(connection)
            await partitions.rebalance()
            if self._lost_at is not None:
                seconds = round(monotonic() - self._lost_at, 1)
                _log.info("worker: the server answers again", extra={"event": "database_back", "seconds": seconds})
                self._lost_at = None
            if self._rebuilding is None:
                self._rebuilding = asyncio.create_task(rebuild_outdated(self._store, self._projections))
            tasks = [asyncio.create_task(runner.run(partitions)) for runner in runners]
            try:
                await asyncio.gather(*tasks)
            finally:
                await cancel_and_wait(tasks)
                if any(runner.has_applied for runner in runners):
                    self._pause = RETRY_MIN_SECONDS
                    self._logged_error = ""


# The partitions of the conversations that a worker applies

REBALANCE_SECONDS = 2.0
"""The interval at which a worker checks whether others have come or gone."""

_JOIN_WORKERS = query("projections", "join_workers")
_COUNT_WORKERS = query("projections", "count_workers")
_TAKE_PARTITIONS = query("projections", "take_partitions")
_RELEASE_PARTITIONS = query("projections", "release_partitions")


class Partitions:
    """The partitions of one worker, held by locks of the connection's session.

    Attributes:
        held: their numbers.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._has_joined = False
        self.held: list[int] = []

    async def rebalance(self) -> None:
        """Take free partitions, or release some, until this worker has its fair share, as far as possible."""
        with translated():
            if not self._has_joined:
                await self._connection.execute(_JOIN_WORKERS)
                self._has_joined = True
            [(workers,)] = await (await self._connection.execute(_COUNT_WORKERS)).fetchall()
            fair_share = -(-PARTITIONS // max(workers, 1))
            if len(self.held) > fair_share:
                await self._connection.execute(_RELEASE_PARTITIONS, {"partitions": self.held[fair_share:]})
                released, self.held = self.held[fair_share:], self.held[:fair_share]
                self._log_change("partitions_released", released, workers)
            elif len(self.held) < fair_share:
                parameters = {"held": self.held, "wanted": fair_share - len(self.held)}
                taken = await (await self._connection.execute(_TAKE_PARTITIONS, parameters)).fetchall()
                self.held = sorted([*self.held, *(partition for (partition,) in taken)])
                if taken:
                    self._log_change("partitions_taken", [partition for (partition,) in taken], workers)

    def _log_change(self, event: str, partitions: list[int], workers: int) -> None:
        fields = {"event": event, "partitions": sorted(partitions), "workers": workers}
        _log.info("this worker applies %d partition(s), of %d workers", len(self.held), workers, extra=fields)


# A connection of a worker, and the projections that it applies there one after the other

HEAVY_LOAD_EVENTS_PER_SECOND, HEAVY_LOAD_SECONDS = 2000, 1.0
"""The write load is heavy from so many events per second on, measured over so long a time: a short burst is not."""
LOW_PRIORITY_SHARE = 0.05
"""The part of the time that low-priority projections work under heavy write load."""
LOW_PRIORITY_DELAY_SECONDS = 0.005
"""The delay of the rounds of low-priority projections, so that the others are done if there is little to do."""
STREAM_POLL_SECONDS, LOW_PRIORITY_STREAM_POLL_SECONDS = 0.012, 0.25
"""The seconds from the beginning of one round to that of the next, in a stream of appends."""


class Runner:
    """Applies some projections over one connection.

    Args:
        is_low_priority: whether the projections yield to the others.

    Attributes:
        connection: the connection that its batches are applied over.
        has_applied: whether a batch has succeeded.
    """

    def __init__(
        self,
        store: EventStore,
        applier: Applier,
        projections: Sequence[Projection],
        batch_size: int,
        is_low_priority: bool,
    ) -> None:
        self._store = store
        self._applier = applier
        self._is_low_priority = is_low_priority
        awaited_first = sorted(projections, key=lambda projection: not projection.is_awaited)
        self._all = [ProjectionProgress(each, min(batch_size, each.largest_batch)) for each in awaited_first]
        self._small_size = min(batch_size, SMALL_BATCH_SIZE)
        self._poll_throttle = PollThrottle(monotonic())
        self._counted_events, self._counting_since, self._is_load_heavy = 0, monotonic(), False
        self._is_behind = False
        self.connection: Connection = applier.connection
        self.has_applied = False

    async def run(self, partitions: Partitions) -> None:
        """Apply events as they come, until an error ends it; rebalance the partitions, unless it has low priority."""
        rebalanced_at = monotonic()
        poll_seconds = LOW_PRIORITY_STREAM_POLL_SECONDS if self._is_low_priority else STREAM_POLL_SECONDS
        position = await horizon(self._store.connections.projector)
        throttle = LoadThrottle(self._store, position, HEAVY_LOAD_EVENTS_PER_SECOND, LOW_PRIORITY_SHARE)
        held: Sequence[int] = []
        idle_at: int | None = None
        while True:
            if self._is_low_priority:
                await asyncio.sleep(LOW_PRIORITY_DELAY_SECONDS)
            elif monotonic() - rebalanced_at >= REBALANCE_SECONDS:
                rebalanced_at = monotonic()
                await partitions.rebalance()
            if idle_at is not None and held == partitions.held and await self._applied_position(held) >= idle_at:
                idle_at = await self._wait_for_events(held, idle_at)
                continue
            held, idle_at = partitions.held, None
            began = monotonic()
            events, applied = await self._apply_round(held)
            now = monotonic()
            self._measure_load(now, events)
            if self._is_low_priority:
                await throttle.pause(now - began)
            elif self._is_load_heavy:
                self._poll_throttle.spend(now, now - began)
            if self._is_behind:
                continue
            if self._is_load_heavy and not self._is_low_priority:
                await asyncio.sleep(self._poll_throttle.pause(now))
            if events > 1:  # a stream of appends
                await asyncio.sleep(began + poll_seconds - monotonic())
            else:
                idle_at = await self._wait_for_events(held, applied)

    async def _apply_round(self, partitions: Sequence[int]) -> tuple[int, int | None]:
        """Apply the next batch of each projection.

        The results are the events of the log that were covered, and the position that all have applied, if known.
        """
        due = [progress for progress in self._all if progress.due_in <= 0] if partitions else []
        small = await self._apply_small_batches(due, partitions)
        events = max((applied.events for applied in small.values()), default=0)
        rest = [progress for progress in due if progress not in small or small[progress].events >= self._small_size]
        for progress in rest:
            events = max(events, await self._apply_batch(progress, partitions))
        self._is_behind = any(progress.is_behind for progress in rest)
        return events, None if rest or not small else min(applied.position for applied in small.values())

    async def _apply_small_batches(
        self, due: Sequence[ProjectionProgress], partitions: Sequence[int]
    ) -> dict[ProjectionProgress, Applied]:
        """Apply a small batch of each projection that allows it; if one fails, each is applied separately later."""
        allowed = [progress for progress in due if progress.allows_small_batches]
        if self._is_behind or not allowed:
            return {}
        try:
            outcomes = await self._applier.apply_small_batches(
                [progress.projection for progress in allowed], partitions, self._small_size
            )
        except ConnectionLost:
            raise
        except EventStoreError as error:
            if self.connection.closed:
                raise
            _log.debug("applying each projection separately: %s", loggable(error))
            return {}
        self.has_applied = True
        return dict(zip(allowed, outcomes, strict=True))

    async def _apply_batch(self, progress: ProjectionProgress, partitions: Sequence[int]) -> int:
        """Apply the next batch of a projection. An error of one projection does not stop the others."""
        try:
            events = await progress.apply_batch(self._applier, partitions)
            self.has_applied = True
            return events
        except ProjectionChanged:
            progress.forget_definition()
        except ProjectionPaused:
            if not progress.is_paused:
                fields = {"event": "projection_paused", "projection": progress.projection.name}
                _log.info("projection %s is paused", progress.projection.name, extra=fields)
            progress.pause()
        except ConnectionLost:
            raise
        except EventStoreError as error:
            if self.connection.closed:
                raise
            progress.postpone()
            name = progress.projection.name
            fields = {"event": "projection_failed", "projection": name}
            _log.warning("projection %s: %s", name, loggable(error), extra=fields)
        return 0

    def _measure_load(self, now: float, events: int) -> None:
        self._counted_events += events
        seconds = now - self._counting_since
        if seconds >= HEAVY_LOAD_SECONDS:
            self._is_load_heavy = self._counted_events >= HEAVY_LOAD_EVENTS_PER_SECOND * seconds
            self._counted_events, self._counting_since = 0, now

    async def _wait_for_events(self, partitions: Sequence[int], applied: int | None) -> int | None:
        """Return when there are new events, or a projection is due again, or it is time to rebalance.

        The result is the position that all have applied, or None if there may be something to apply.
        """
        timeout = min([REBALANCE_SECONDS, *(progress.due_in for progress in self._all if progress.due_in > 0)])
        ready = [progress.projection for progress in self._all if progress.due_in <= 0 and progress.is_known]
        if not partitions or not ready:
            await asyncio.sleep(timeout)
            return None
        if applied is None:
            applied = await self._applied_position(partitions, ready)
        waiting = asyncio.create_task(self._store.wait(applied))
        try:
            await asyncio.wait((waiting,), timeout=timeout)
            if waiting.done():
                await waiting
                return None
        finally:
            await cancel_and_wait((waiting,))
        return applied if len(ready) == len(self._all) else None

    async def _applied_position(self, partitions: Sequence[int], ready: Sequence[Projection] | None = None) -> int:
        """Return the position that projections, all of them by default, have applied in these partitions."""
        projections = [progress.projection for progress in self._all] if ready is None else ready
        given = {"projections": [each.name for each in projections], "partitions": list(partitions)}
        with translated():
            [(position,)] = await (await self.connection.execute(POSITION, given)).fetchall()
        return int(position)


# The progress of one projection in a worker: the definition of its tables, the size of its batches, when to try again

FIRST_BATCH_SIZE, MIN_BATCH_SIZE = 500, 100
"""The first and the smallest size of a batch: if so few take long, the machine is busy, not the batch too large."""
QUICK_BATCH_SECONDS, SLOW_BATCH_SECONDS = 0.01, 0.04
"""A full batch that takes less than the first is followed by a larger one; one that takes longer than the second, by a
smaller one: rows become visible batch by batch, and a batch locks the checkpoints of the partitions that have events in
it, for which a read of one's own writes may have to wait. Batches of 500 to 1000 events cost no more per event than
larger ones."""
PERSISTENT_FAILURES = 3
"""Failures of one projection in a row, with growing pauses, from which on the server's state does not explain them."""


class ProjectionProgress:
    """The progress of one projection in a worker.

    Attributes:
        projection: as this version defines it.
        is_behind: whether the last batch was full, so that there may be more events.
        is_paused: whether an administrator had paused it when a batch was last tried.
        is_known: whether the definition that its tables are made by is known; if not, only a rebuild helps.
    """

    def __init__(self, projection: Projection, largest_size: int) -> None:
        self.projection = projection
        self.is_behind = False
        self.is_paused = False
        self.is_known = True
        self._size = min(FIRST_BATCH_SIZE, largest_size)
        self._largest_size = largest_size
        self._made_by: Projection | None = None
        self._failures = 0
        self._pause = 0.0
        self._due_at = 0.0

    @property
    def due_in(self) -> float:
        """Seconds until it may be tried again; not positive if it may be tried now."""
        return self._due_at - monotonic()

    @property
    def allows_small_batches(self) -> bool:
        """True if the projection is built in, not paused, and its tables are made by the definition of this version."""
        return self._made_by is self.projection and self.projection.is_built_in and not self.is_paused

    async def apply_batch(self, applier: Applier, partitions: Sequence[int]) -> int:
        """Apply the next batch for these partitions. Return the number of events that it covered."""
        if self._made_by is None:
            self._made_by = await applier.register(self.projection)
            self.is_known = self._made_by is not None
        if self._made_by is None:
            self.is_behind = False
            return 0
        began = monotonic()
        is_persistent = self._failures >= PERSISTENT_FAILURES
        applied = await applier.apply_batch(
            self._made_by, partitions=partitions, size=self._size, is_persistent=is_persistent
        )
        self._pause, self._failures, self.is_paused = 0.0, 0, False
        events = 0 if applied is None else applied.events
        self.is_behind = events >= self._size
        if applied is not None:
            self._adapt_size(monotonic() - began)
        return events

    def _adapt_size(self, seconds: float) -> None:
        if seconds > SLOW_BATCH_SECONDS:
            self._size = min(self._size, max(self._size // 2, MIN_BATCH_SIZE))
        elif self.is_behind and seconds < QUICK_BATCH_SECONDS:
            self._size = min(self._size * 2, self._largest_size)

    def forget_definition(self) -> None:
        """Look up again what the tables are made by, because that has changed."""
        self._made_by = None

    def pause(self) -> None:
        """Try again after a few seconds: nothing tells that a paused projection was resumed."""
        self.is_behind, self.is_paused = False, True
        self._due_at = monotonic() + REBALANCE_SECONDS

    def postpone(self) -> None:
        """Try again after a pause, which grows with each failure."""
        self.is_behind = False
        self._failures += 1
        self._pause = min(self._pause * 2, RETRY_MAX_SECONDS) if self._pause else RETRY_MIN_SECONDS
        self._due_at = monotonic() + self._pause
