"""Lookups of conversations and change tokens, and waiting for the read tables.

A worker that follows a stream paces itself and applies new events a few times a second. A client that reads what it has
just written would wait for that long. So the server applies it itself, as one more worker would: rows and checkpoints
move in one transaction, whoever comes first. Reads that arrive meanwhile share the next round.

Only the partitions ("partitions") of the conversations that the tenant wrote to are applied and waited for. Each has a
checkpoint of its own, and all events of a conversation are in one, so a checkpoint at or above the last position of
each conversation says that the tables hold all that the tenant wrote, however far behind the other partitions are.

Each is one small statement. A mark is taken before what it stands for is read: what was read then may be newer than its
mark, never older, so that a client whose mark is still the present one has missed nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from psycopg.types.numeric import Int8
from psycopg_pool import PoolTimeout

from eventstore import Caller, EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.database.pools import FairQueue
from eventstore.database.queries import query
from eventstore.errors import EventStoreError
from eventstore.read import horizon, last_event
from projections import Projection, Reader, applied_position, named
from projections.apply import Applier
from projections.projection import PARTITIONS
from projections.read_your_writes import POSITION_OF_ALL_PARTITIONS, lagging, wait_for_written, written_between
from projections.reading import not_found

# Applying what the workers have not reached yet, if a read must hold it

APPLIERS = 4
"""Connections that apply, at most."""
BATCH_EVENTS = 500
"""Events in a transaction. While it lasts, a worker that comes to one of its partitions waits, and holds others that
other tenants may be waiting for."""
FAR = 5_000
"""Events to apply; tables that are further behind are the workers' business, and are waited for."""


class ReadYourWrites:
    """Brings read tables up with the log on demand, over a few connections, which it opens when they are first needed.

    A tenant uses one of them at a time, so that it does not wait for what another has to apply.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._turns = FairQueue(APPLIERS)
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
        of_found: bool = False,
    ) -> str:
        """Return what the tables of the projections hold for a caller, as a mark, once they hold what was written.

        Args:
            written: positions by conversation: only the partitions of these conversations are waited for, so that
                nobody
                waits for what others write.
            at_least: a position; all that the caller's tenant wrote up to there was written, too.
            of_found: see :func:`looking.tables_change_token`.

        Raises:
            NotCaughtUp: they do not within ``timeout`` seconds.
        """
        known = named(list(projections))
        position, change_token = await tables_change_token(self._store, known, caller, of_found=of_found)
        if position >= max(at_least, *written.values(), 0):
            return change_token
        awaited: dict[UUID | None, int] = dict(written.items())
        if at_least > position:
            for conversation, there in (await written_between(self._store, caller.tenant, position, at_least)).items():
                awaited[conversation] = max(there, awaited.get(conversation, 0))
        missing = await lagging(self._store, known, awaited)
        until = max(missing.values(), default=0)
        if missing and (until - position) * len(missing) / PARTITIONS <= FAR:
            task = asyncio.create_task(self._round(known, sorted(missing), until, caller.tenant, timeout))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await asyncio.wait({task}, timeout=timeout)  # a cancelled request does not cancel the transaction
        await wait_for_written(self._store, known, awaited, timeout=timeout)
        # The first mark may be older than what was waited for.
        return (await tables_change_token(self._store, known, caller, of_found=of_found))[1]

    async def close(self) -> None:
        """Closes the connection."""
        await cancel_and_wait(self._running)
        while self._idle:
            await self._idle.pop().close()

    async def _round(
        self, projections: Sequence[Projection], partitions: Sequence[int], until: int, tenant: str, timeout: float
    ) -> None:
        """Errors are the worker's to report and to try again; the read goes on to wait."""
        with suppress(EventStoreError, PoolTimeout):
            async with self._turns.permit(tenant, timeout):
                lagging_ones = [
                    projection
                    for projection in projections
                    if await applied_position(self._store, [projection], partitions) < until
                ]
                if lagging_ones:
                    await self._catch_up(lagging_ones, partitions, until)

    async def _catch_up(self, projections: Sequence[Projection], partitions: Sequence[int], until: int) -> None:
        applier = self._idle.pop() if self._idle else await Applier.open(self._store, BATCH_EVENTS)
        try:
            for projection in projections:
                made_by = await applier.register(projection)
                if made_by is not None:  # else only a rebuild can
                    await applier.catch_up(made_by, partitions=partitions, until=until)
        except BaseException:
            await applier.close()
            raise
        self._idle.append(applier)


# The cheap looks at the log and the read tables: whether anything has changed, and which conversation is meant

READ_TABLES = ("conversations", "messages", "tasks", "actors")
"""The projections behind everything but search and statistics, which follow a little later."""
HIGHEST_POSITION = 2**63 - 1

_LOOK = query("agent_manager.server", "look").replace("{position}", POSITION_OF_ALL_PARTITIONS)
_LOG_CHANGE_TOKEN = query("agent_manager.server", "log_change_token")
_RESOLVE = query("agent_manager.server", "resolve")
_VISIBLE_IDS = query("agent_manager.server", "visible_ids")


@dataclass(frozen=True, slots=True)
class ResolvedConversation:
    """A conversation, the version that it has come to, and whether it is deleted."""

    id: UUID
    version: int
    is_deleted: bool


async def tables_change_token(
    store: EventStore, projections: Sequence[Projection], caller: Caller, *, of_found: bool = False
) -> tuple[int, str]:
    """The position that the projections have applied, and what their tables hold for a caller, as a mark.

    What a user may see changes with the log, before any table does: their mark is that of the log too.

    Args:
        of_found: what is read is of a conversation that was found for the caller just now, so that it need not be.
    """
    given = {
        "projections": [projection.name for projection in projections],
        "tables": [table for projection in projections for table in projection.tables],
    }
    looking = store.tables(caller).fetch(_LOOK, given)
    if caller.user is None or of_found:
        position, change_token = (await looking)[0]
    else:
        ((position, change_token), *_), of_log = await asyncio.gather(looking, log_change_token(store))
        change_token = f"{change_token} {of_log}"
    return int(position), str(change_token)


async def log_change_token(store: EventStore) -> str:
    """What can be seen of the log, as a mark."""
    return str((await store.log(store.caller()).fetch(_LOG_CHANGE_TOKEN))[0][0])


async def visible_ids(reader: Reader, conversations: Collection[UUID]) -> set[UUID]:
    """Those of the conversations that the reader's caller may see."""
    caller = reader.caller
    if caller.user is None or not conversations:
        return set(conversations)
    given = {"tenant": caller.tenant, "user": caller.user, "ids": list(conversations)}
    return {row[0] for row in await reader.store.tables(caller).fetch(_VISIBLE_IDS, given)}


async def resolve(
    reader: Reader, conversation: UUID | str, position: int = HIGHEST_POSITION
) -> ResolvedConversation | None:
    """The conversation that a text names, and the version that it had come to at a position; None if there is none.

    For a user it ends at the same place, and as soon, whether there is none or it is not theirs to see.
    """
    caller = reader.caller
    given = {
        "tenant": caller.tenant,
        "user": caller.user,
        "ids": reader.candidates(conversation),
        "position": Int8(position),
    }
    rows = await reader.store.log(caller).fetch(_RESOLVE, given)
    return ResolvedConversation(*rows[0]) if rows else None


async def get_or_404(reader: Reader, conversation: UUID | str) -> ResolvedConversation:
    """The conversation that a text names.

    Raises:
        NotFound: there is none.
    """
    found = await resolve(reader, conversation)
    if found is None:
        raise not_found(conversation)
    return found


async def end_of_log(store: EventStore) -> int:
    """The position of the last event that is final."""
    log = store.log(store.caller())
    return await last_event(log, await horizon(log))
