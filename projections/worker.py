"""The worker: follows the log and keeps the read tables up with it, for as long as it runs.

Any number may run, on any machine. Each follows some shares of the conversations (:mod:`projections.shares`), all of
them where it is alone, and looks every other second whether one of the others has come or gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack

from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.database.translate import translated
from eventstore.ending import end
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
)
from projections.apply import BATCH_SIZE, Applier
from projections.own import prepare
from projections.projection import PROJECTIONS, Projection
from projections.renewal import Renewal
from projections.shares import Shares
from projections.track import RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS, Track

log = logging.getLogger(__name__)

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
        renewal = Renewal(self._store, self._projections)
        try:
            while True:
                try:
                    await self._follow(renewal)
                except (ConnectionLost, ServerUnreachable) as error:
                    self._tell(error)
                    await self._store.revive()
                    self._pause = min(self._pause, RETRY_AWAY_SECONDS)
                except ServerError as error:
                    self._tell(error)
                    await self._store.revive()
                except SettingsError:
                    raise  # no time heals it
                except EventStoreError:
                    log.exception("worker")
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, RETRY_LONGEST_SECONDS)
        finally:
            await renewal.close()

    def _tell(self, error: ServerError) -> None:
        """Log an error once, until the worker has worked again."""
        if str(error) != self._told:
            self._told = str(error)
            log.warning("worker: %s", error)

    async def _follow(self, renewal: Renewal) -> None:
        """Those that take long, the search above all, have a connection of their own and hold up nobody."""
        await prepare(self._store, self._projections)
        async with AsyncExitStack() as stack:
            tracks = []
            for apart in (False, True):
                applier = await Applier.open(self._store, self._batch_size)
                stack.push_async_callback(applier.close)
                projections = [projection for projection in self._projections if projection.is_apart == apart]
                tracks.append(Track(self._store, applier, projections, self._batch_size, is_apart=apart))
            with translated():
                name = f"eventstore worker {socket.gethostname()}:{os.getpid()}"
                await tracks[0].connection.execute(_NAME, {"name": name})
            shares = Shares(tracks[0].connection)
            await shares.settle()
            renewal.look()
            tasks = [asyncio.create_task(track.follow(shares)) for track in tracks]
            try:
                await asyncio.gather(*tasks)  # until one fails
            finally:
                await end(tasks)
                if any(track.has_applied for track in tracks):
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
