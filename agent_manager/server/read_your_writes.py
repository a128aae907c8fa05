"""The change tokens of what requests read, and reads that include what their tenant has written.

A *change token* is a text that changes whenever the data that it stands for may have changed. It is read before the
data: what is read may be newer than its token, never older. So a client whose token is still current has missed
nothing.

A read must include what the tenant has written through this server. Under heavy load, workers apply new events only a
few times a second, and a client that reads its own write would wait that long. So :class:`ReadYourWrites`
applies the events itself, as one more worker would: rows and checkpoints change in one transaction, whichever process
is first. It applies and awaits only the partitions of the conversations that the tenant wrote to. All events of a
conversation are in one partition, which has its own checkpoint. So a checkpoint at or above the last position of each
of these conversations says that the tables hold all that the tenant wrote, however far behind the other partitions are.

If the tables are read from a standby (``EVENTSTORE_READ_URL``), tokens and checkpoints are those of the standby, and
the read also waits until what was written is replayed there. Events are applied on the primary, if they are not yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from uuid import UUID

from psycopg_pool import PoolTimeout

from eventstore import Caller, EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.database.pools import FairQueue, ScopedPool
from eventstore.database.queries import query
from eventstore.errors import EventStoreError
from projections import Projection, select_projections
from projections.apply import Applier
from projections.projection import PARTITIONS
from projections.read_your_writes import lagging, wait_for_written, written_between
from projections.status import POSITION_OF_ALL_PARTITIONS

READ_TABLES = ("conversations", "messages", "tasks", "actors")
"""The projections behind all reads but search and statistics, which are applied a little later."""
MAX_APPLIERS = 4
"""Connections over which reads apply events."""
BATCH_EVENTS = 500
"""Events that a read applies in one transaction, on average: those of its partitions among that many times the events
of the log. Another read of the same partitions may have to wait for its end."""
MAX_LAG = 5_000
"""Events that a read applies itself at most; if the tables are further behind, it waits for the workers."""

_TABLES_CHANGE_TOKEN = query("agent_manager.server", "tables_change_token").replace(
    "{position}", POSITION_OF_ALL_PARTITIONS
)
_LOG_CHANGE_TOKEN = query("agent_manager.server", "log_change_token")


async def log_change_token(view: ScopedPool) -> str:
    """Return the change token of the visible events of the log, on the server that a view reads from."""
    return str((await view.fetch(_LOG_CHANGE_TOKEN))[0][0])


async def tables_change_token(
    tables: ScopedPool, projections: Sequence[Projection], caller: Caller, *, is_resolved: bool = False
) -> tuple[int, str]:
    """Return the position that the projections have applied, and the change token of their tables for a caller.

    What a user may see changes with the log, before any table does, so a user's token includes that of the log, as the
    server of the tables has it.

    Args:
        tables: The tables in the scope of the caller.
        is_resolved: The request reads one conversation, which was resolved for the caller in the same request. Then the
            log's token is not needed.
    """
    parameters = {
        "projections": [projection.name for projection in projections],
        "tables": [table for projection in projections for table in projection.tables],
    }
    of_tables = tables.fetch(_TABLES_CHANGE_TOKEN, parameters)
    if caller.user is None or is_resolved:
        position, change_token = (await of_tables)[0]
    else:
        ((position, change_token), *_), of_log = await asyncio.gather(of_tables, log_change_token(tables))
        change_token = f"{change_token} {of_log}"
    return int(position), str(change_token)


class ReadYourWrites:
    """Applies events to the read tables on demand, over a few connections that are opened when they are first needed.

    A tenant uses one connection at a time, so that it does not wait for what another tenant must apply.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._permits = FairQueue(MAX_APPLIERS)
        self._idle: list[Applier] = []
        self._running: set[asyncio.Task[None]] = set()

    async def change_token(
        self,
        projections: Sequence[str],
        written: Mapping[UUID, int],
        timeout: float,
        caller: Caller,
        *,
        at_least: int = 0,
        is_resolved: bool = False,
        on_primary: bool = False,
    ) -> tuple[int, str]:
        """Return the position and the change token of the projections' tables for a caller, with what was written.

        Args:
            written: Positions by conversation. Only the partitions of these conversations are awaited, so nobody waits
                for what others write.
            at_least: A position; everything that the caller's tenant wrote up to it counts as written, too.
            is_resolved: See :func:`tables_change_token`.
            on_primary: Whether the tables are read from the primary even if there is a standby.

        Raises:
            NotCaughtUp: The tables do not hold it within ``timeout`` seconds.
        """
        found = select_projections(list(projections))
        tables = self._store.tables(caller, on_primary=on_primary)
        # It is resolved on the primary, and the memberships of a standby may be older.
        is_resolved = is_resolved and (on_primary or self._store.connections.standby is None)
        position, change_token = await tables_change_token(tables, found, caller, is_resolved=is_resolved)
        if position >= max(at_least, *written.values(), 0):
            return position, change_token
        awaited: dict[UUID | None, int] = dict(written.items())
        if at_least > position:
            for conversation, last in (await written_between(self._store, caller.tenant, position, at_least)).items():
                awaited[conversation] = max(last, awaited.get(conversation, 0))
        missing = await lagging(self._store, found, awaited, on_primary=True)
        until = max(missing.values(), default=0)
        if missing and (until - position) * len(missing) / PARTITIONS <= MAX_LAG:
            task = asyncio.create_task(self._apply_round(found, sorted(missing), until, caller.tenant, timeout))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await asyncio.wait({task}, timeout=timeout)  # a cancelled request does not cancel the transaction
        await wait_for_written(self._store, found, awaited, timeout=timeout, on_primary=on_primary)
        # The first token may be older than what was awaited.
        return await tables_change_token(tables, found, caller, is_resolved=is_resolved)

    async def close(self) -> None:
        """Close the connections."""
        await cancel_and_wait(self._running)
        while self._idle:
            await self._idle.pop().close()

    async def _apply_round(
        self, projections: Sequence[Projection], partitions: Sequence[int], until: int, tenant: str, timeout: float
    ) -> None:
        """Apply events to the projections that lack them.

        A failure is not raised: a worker retries and reports it, and the read goes on to wait for the worker.
        """
        with suppress(EventStoreError, PoolTimeout):
            async with self._permits.permit(tenant, timeout):
                applier = self._idle.pop() if self._idle else await Applier.open(self._store)
                try:
                    await _apply(applier, projections, partitions, until)
                except BaseException:
                    await applier.close()
                    raise
                self._idle.append(applier)


async def _apply(applier: Applier, projections: Sequence[Projection], partitions: Sequence[int], until: int) -> None:
    """Apply events until the projections have reached a position, or what precedes it is not final yet."""
    size = BATCH_EVENTS * PARTITIONS // len(partitions)
    try:
        outcomes = await applier.apply_small_batches(projections, partitions, size)
        while any(applied.events and applied.position < until for applied in outcomes):
            outcomes = await applier.apply_small_batches(projections, partitions, size)
        return
    except EventStoreError:
        if applier.connection.closed:
            raise
    for projection in projections:  # one fails, has no checkpoints yet, or its tables are made by another definition
        registered = await applier.register(projection)
        if registered is not None:  # otherwise only a rebuild can apply the events
            await applier.apply_all(registered, partitions=partitions, until=until)
