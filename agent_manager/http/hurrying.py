"""Applying what the workers have not come to yet, where a read must hold it.

A worker that follows a stream paces itself and takes what has come some times a second. Whoever reads what they have
just written would wait for that long. So the server applies it itself, as one more worker would: rows and checkpoints
move in one transaction, whoever comes first. Reads that arrive meanwhile share the next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent_manager.http import looking
from eventstore import Caller, EventStore
from eventstore.ending import end
from eventstore.errors import EventStoreError
from projections import Projection, applied_position, named, wait_for
from projections.apply import Applier

FAR = 5_000
"""Positions; tables that are further behind are the workers' business, and are waited for."""


class Hurry:
    """Brings read tables up with the log on demand, over one connection that it opens when it is first needed."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._turn = asyncio.Lock()
        self._applier: Applier | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def mark(
        self, projections: Sequence[str], at_least: int, timeout: float, caller: Caller, *, of_found: bool = False
    ) -> str:
        """What the tables of the projections hold for a caller, as a mark, once they have applied a position.

        Args:
            of_found: see :func:`looking.mark_of_tables`.

        Raises:
            NotCaughtUp: they have not within ``timeout`` seconds.
        """
        known = named(list(projections))
        position, mark = await looking.mark_of_tables(self._store, known, caller, of_found=of_found)
        if position >= at_least:
            return mark
        if at_least - position <= FAR:
            task = asyncio.create_task(self._round(known, at_least))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await asyncio.shield(task)  # whoever leaves does not break off the transaction
        await wait_for(self._store, at_least, projections=known, timeout=timeout)
        return (await looking.mark_of_tables(self._store, known, caller, of_found=of_found))[1]

    async def close(self) -> None:
        """Closes the connection."""
        await end(self._running)
        if self._applier is not None:
            await self._applier.close()
            self._applier = None

    async def _round(self, projections: Sequence[Projection], at_least: int) -> None:
        async with self._turn:
            for projection in projections:
                if await applied_position(self._store, [projection]) < at_least:
                    await self._catch_up(projection)

    async def _catch_up(self, projection: Projection) -> None:
        """What fails here is the worker's to tell and to try again; the read goes on to wait for it."""
        try:
            if self._applier is None or self._applier.connection.closed:
                self._applier = await Applier.open(self._store)
            made_by = await self._applier.register(projection)
            if made_by is not None:  # else only a rebuild can
                await self._applier.catch_up([made_by])
        except EventStoreError:
            if self._applier is not None:
                await self._applier.close()
                self._applier = None
