"""Applying what the workers have not reached yet, if a read must hold it.

A worker that follows a stream paces itself and applies new events a few times a second. A client that reads what it has
just written would wait for that long. So the server applies it itself, as one more worker would: rows and checkpoints
move in one transaction, whoever comes first. Reads that arrive meanwhile share the next round.

Only the partitions ("shares") of the conversations that the tenant wrote to are applied and waited for. Each has a
checkpoint of its own, and all events of a conversation are in one, so a checkpoint at or above the last position of
each conversation says that the tables hold all that the tenant wrote, however far behind the other partitions are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from agent_manager.http import looking
from eventstore import Caller, EventStore
from eventstore.ending import end
from eventstore.errors import EventStoreError
from projections import Projection, applied_position, named
from projections.apply import Applier
from projections.checkpoints import lagging, wait_for_written
from projections.position import written_between
from projections.projection import SHARES

FAR = 5_000
"""Events to apply; tables that are further behind are the workers' business, and are waited for."""


class Hurry:
    """Brings read tables up with the log on demand, over one connection that it opens when it is first needed."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._turn = asyncio.Lock()
        self._applier: Applier | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def mark(
        self,
        projections: Sequence[str],
        written: Mapping[UUID, int],
        timeout: float,
        caller: Caller,
        *,
        at_least: int = 0,
        of_found: bool = False,
    ) -> str:
        """Return what the tables of the projections hold for a caller, as a mark, once they hold what was written.

        Args:
            written: positions by conversation: only the shares of these conversations are waited for, so that nobody
                waits for what others write.
            at_least: a position; all that the caller's tenant wrote up to there was written, too.
            of_found: see :func:`looking.mark_of_tables`.

        Raises:
            NotCaughtUp: they do not within ``timeout`` seconds.
        """
        known = named(list(projections))
        position, mark = await looking.mark_of_tables(self._store, known, caller, of_found=of_found)
        if position >= max(at_least, *written.values(), 0):
            return mark
        awaited: dict[UUID | None, int] = dict(written.items())
        if at_least > position:
            for conversation, there in (await written_between(self._store, caller.tenant, position, at_least)).items():
                awaited[conversation] = max(there, awaited.get(conversation, 0))
        missing = await lagging(self._store, known, awaited)
        until = max(missing.values(), default=0)
        if missing and (until - position) * len(missing) / SHARES <= FAR:
            task = asyncio.create_task(self._round(known, sorted(missing), until))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await asyncio.wait({task}, timeout=timeout)  # a cancelled request does not cancel the transaction
        await wait_for_written(self._store, known, awaited, timeout=timeout)
        # The first mark may be older than what was waited for.
        return (await looking.mark_of_tables(self._store, known, caller, of_found=of_found))[1]

    async def close(self) -> None:
        """Closes the connection."""
        await end(self._running)
        if self._applier is not None:
            await self._applier.close()
            self._applier = None

    async def _round(self, projections: Sequence[Projection], shares: Sequence[int], until: int) -> None:
        async with self._turn:
            for projection in projections:
                if await applied_position(self._store, [projection], shares) < until:
                    await self._catch_up(projection, shares, until)

    async def _catch_up(self, projection: Projection, shares: Sequence[int], until: int) -> None:
        """Errors are the worker's to report and to try again; the read goes on to wait."""
        try:
            if self._applier is None or self._applier.connection.closed:
                self._applier = await Applier.open(self._store)
            made_by = await self._applier.register(projection)
            if made_by is not None:  # else only a rebuild can
                await self._applier.catch_up([made_by], shares=shares, until=until)
        except EventStoreError:
            if self._applier is not None:
                await self._applier.close()
                self._applier = None
