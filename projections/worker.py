"""The worker: follows the log and keeps the read tables up with it, for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic

from eventstore import EventStore
from eventstore.errors import EventStoreError, ServerError, SettingsError
from projections.apply import BATCH_SIZE, Applier, Progress
from projections.checkpoints import applied_position
from projections.projection import PROJECTIONS, Projection

log = logging.getLogger(__name__)

RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS = 0.25, 10.0
"""After an error that may pass: a server that is away, a deadlock, a full disk. Doubled while it does not."""


class Worker:
    """Applies new events to the read tables as they come.

    Any number of workers may run; of two that come to the same batch one waits for the other.
    """

    def __init__(
        self, store: EventStore, projections: Sequence[Projection] = PROJECTIONS, batch_size: int = BATCH_SIZE
    ) -> None:
        self._store = store
        self._projections = projections
        self._batch_size = batch_size
        self._pause = RETRY_FIRST_SECONDS

    async def run(self) -> None:
        """Works until cancelled. A lost server is waited for; an embedded one is started again.

        Raises:
            SettingsError: ``EVENTSTORE_LISTEN_URL`` leads to another database.
        """
        while True:
            try:
                await self._follow()
            except ServerError as error:
                log.warning("worker: %s", error)
                await self._store.revive()
            except SettingsError:
                raise  # no time heals it
            except EventStoreError:
                log.exception("worker")
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, RETRY_LONGEST_SECONDS)

    async def _follow(self) -> None:
        applier = await Applier.open(self._store, self._batch_size)
        try:
            for projection in self._projections:
                await applier.register(projection)
            while True:
                began = monotonic()
                await applier.catch_up(self._projections)
                self._pause = RETRY_FIRST_SECONDS
                seen = await applied_position(self._store, self._projections)
                await self._store.wait(seen, spent=monotonic() - began)
        finally:
            await applier.close()


async def catch_up(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    progress: Progress = lambda name, position: None,
) -> None:
    """Brings the read tables up with the log as it is now, whether or not a worker runs."""
    await _once(store, projections, progress, empty=False)


async def rebuild(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    progress: Progress = lambda name, position: None,
) -> None:
    """Empties the read tables of projections and refills them from the log.

    Readers see empty and growing tables meanwhile. Interrupted, the next worker goes on where it ended.
    """
    await _once(store, projections, progress, empty=True)


async def _once(store: EventStore, projections: Sequence[Projection], progress: Progress, *, empty: bool) -> None:
    applier = await Applier.open(store)
    try:
        for projection in projections:
            await applier.register(projection)
        if empty:
            await applier.empty(projections)
        await applier.catch_up(projections, progress)
    finally:
        await applier.close()
