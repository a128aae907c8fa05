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
from time import monotonic

from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.database.translate import translated
from eventstore.ending import end
from eventstore.errors import ConnectionLost, EventStoreError, ProjectionChanged, ServerError, SettingsError
from projections.apply import BATCH_SIZE, Applier
from projections.checkpoints import applied_position
from projections.following import Following
from projections.own import prepare
from projections.projection import PROJECTIONS, Projection
from projections.renewal import Renewal
from projections.shares import Shares

log = logging.getLogger(__name__)

RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS = 0.25, 10.0
"""After an error that may pass: a server that is away, a deadlock, a full disk. Doubled while it does not."""

LOOK_SECONDS = 2.0
"""How often a worker looks for shares whose worker is gone."""

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
                except ServerError as error:
                    log.warning("worker: %s", error)
                    await self._store.revive()
                except SettingsError:
                    raise  # no time heals it
                except EventStoreError:
                    log.exception("worker")
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, RETRY_LONGEST_SECONDS)
        finally:
            await renewal.close()

    async def _follow(self, renewal: Renewal) -> None:
        """Those that take long, the search above all, have a connection of their own and hold up nobody."""
        await prepare(self._store, self._projections)
        lanes = [
            [
                Following(one, min(self._batch_size, one.largest_batch))
                for one in self._projections
                if one.is_apart == apart
            ]
            for apart in (False, True)
        ]
        async with AsyncExitStack() as stack:
            appliers = []
            for _ in lanes:
                applier = await Applier.open(self._store, self._batch_size)
                stack.push_async_callback(applier.close)
                appliers.append(applier)
            with translated():
                name = f"eventstore worker {socket.gethostname()}:{os.getpid()}"
                await appliers[0].connection.execute(_NAME, {"name": name})
            shares = Shares(appliers[0].connection)
            await shares.settle()
            renewal.look()
            tasks = [
                asyncio.create_task(self._go_on(appliers[0], lanes[0], shares, settle=True)),
                asyncio.create_task(self._go_on(appliers[1], lanes[1], shares, settle=False)),
            ]
            try:
                await asyncio.gather(*tasks)  # until one fails
            finally:
                await end(tasks)

    async def _go_on(self, applier: Applier, followed: Sequence[Following], shares: Shares, *, settle: bool) -> None:
        while True:
            began = monotonic()
            if settle:
                await shares.settle()
            for one in followed:
                await self._catch_up(applier, one, shares)
            await self._sleep(followed, shares, monotonic() - began)

    async def _catch_up(self, applier: Applier, one: Following, shares: Shares) -> None:
        """One projection that cannot go on does not stop the others."""
        if not shares.held or not one.is_due:
            return
        try:
            await one.catch_up(applier, shares.held)
            self._pause = RETRY_FIRST_SECONDS
        except ProjectionChanged:
            one.forget()
        except ConnectionLost:
            raise
        except EventStoreError as error:
            if applier.connection.closed:
                raise
            one.put_off(RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS)
            log.warning("projection %s: %s", one.projection.name, error)

    async def _sleep(self, followed: Sequence[Following], shares: Shares, spent: float) -> None:
        """Until there are events, or it is time to look after the other workers."""
        due = min([LOOK_SECONDS, *(one.due_in for one in followed if one.due_in > 0)])
        awake = [one.projection for one in followed if one.due_in <= 0 and one.is_known]
        if not shares.held or not awake:
            await asyncio.sleep(due)
            return
        seen = await applied_position(self._store, awake, shares.held)
        waiting = asyncio.create_task(self._store.wait(seen, spent=spent))
        try:
            await asyncio.wait((waiting,), timeout=due)
            if waiting.done():
                await waiting
        finally:
            await end((waiting,))


async def catch_up(store: EventStore, projections: Sequence[Projection] = PROJECTIONS) -> None:
    """Brings the read tables up with the log as it is now, whether or not a worker runs."""
    await prepare(store, projections)
    applier = await Applier.open(store)
    try:
        for projection in projections:
            while True:
                made_by = await applier.register(projection)
                if made_by is None:
                    break  # only a rebuild can
                try:
                    await applier.catch_up([made_by])
                    break
                except ProjectionChanged:
                    continue
    finally:
        await applier.close()
