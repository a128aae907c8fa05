"""Positions that projections have applied, and reads that wait for them (read your writes).

The tables follow the log in partitions of the conversations. Usually all partitions have applied the position that a
read must see, and the read's own statement shows it. Otherwise the log shows which conversations the tenant wrote to
in between, and the read waits only for their partitions, however far the rest is behind with what others wrote. An
event is in its table once the checkpoint of its partition is at or above its position. The log shows all appends of the
tenant that were acknowledged before the read, because they are committed.

If the tables are read from a standby, its own checkpoints are what counts: each is replayed together with the rows that
it stands for. So a read there waits for the workers and for the replay alike. The log is read from the primary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from eventstore import Caller, EventStore
from eventstore.database.pools import Pool
from eventstore.database.queries import query
from eventstore.errors import InputError, NotCaughtUp, ProjectionPaused
from eventstore.read import RawRows, end_of_log
from projections.pausing import read_paused
from projections.projection import ALL_PARTITIONS, PROJECTIONS, Projection, select_projections
from projections.status import POSITION_OF_ALL_PARTITIONS, read_standby, read_workers

Written = Mapping[UUID | None, int]
"""Positions by the conversation that they were written to; None stands for any conversation."""

POSITION = query("projections", "position")
"""The statement for the position that projections have applied in some partitions."""
LAGGING = query("projections", "lagging")
_WRITTEN = query("projections", "written")
_AT_LEAST = query("projections", "at_least")
_CHECKPOINTS = query("projections", "checkpoint_positions")
_UNAPPLIED = query("projections", "unapplied")
_FLUSH = query("projections", "flush")
STANDBY_IS_BEHIND = "the standby of EVENTSTORE_READ_URL has not replayed it; eventstore status shows how far it is"
NO_WORKER = "no worker is running: eventstore up or eventstore project starts one"
_POLL_SECONDS = 0.01


async def applied_position(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    partitions: Sequence[int] = ALL_PARTITIONS,
    *,
    on_primary: bool = False,
) -> int:
    """Return the position up to which all of the projections have applied the log, in all of the partitions.

    If reads go to a standby, it is the position there, unless that of the primary is wanted.
    """
    given = {"projections": [projection.name for projection in projections], "partitions": list(partitions)}
    [(position,)] = await _checkpoints(store, on_primary).fetch(POSITION, given)
    return int(position)


async def wait_for(
    store: EventStore, position: int, *, projections: Sequence[Projection] = PROJECTIONS, timeout: float = 10.0
) -> None:
    """Return once the projections have applied a position, such as that of an append.

    Raises:
        NotCaughtUp: they have not applied it within ``timeout`` seconds.
    """
    await wait_for_written(store, projections, {None: position}, timeout=timeout)


async def wait_for_written(
    store: EventStore, projections: Sequence[Projection], written: Written, *, timeout: float, on_primary: bool = False
) -> None:
    """Return once the projections have applied what was written to these conversations.

    Raises:
        NotCaughtUp: they have not applied it within ``timeout`` seconds.
        ProjectionPaused: one of them is paused and has not applied it.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    is_on_standby = not on_primary and store.connections.standby is not None
    is_flushed = has_checked_pauses = False
    while missing := await lagging(store, projections, written, on_primary=on_primary):
        if asyncio.get_running_loop().time() > deadline:
            position = max(missing.values())
            raise NotCaughtUp(
                f"the read tables have not applied position {position} after {timeout} seconds: "
                f"{STANDBY_IS_BEHIND if is_flushed else await why_behind(store, projections)}"
            )
        if is_on_standby and not is_flushed and not await lagging(store, projections, written, on_primary=True):
            # The workers do not wait for a flush when they commit, and a standby receives only what was flushed.
            await store.connections.primary_reader.fetch(_FLUSH)
            is_flushed = True
        await asyncio.sleep(_POLL_SECONDS)
        if not has_checked_pauses:
            has_checked_pauses = True
            await _check_not_paused(store, projections, written, on_primary=on_primary)


async def _check_not_paused(
    store: EventStore, projections: Sequence[Projection], written: Written, *, on_primary: bool
) -> None:
    paused = await _paused(store, projections)
    if paused and await lagging(store, paused, written, on_primary=on_primary):
        raise ProjectionPaused(paused_text(paused))


async def _paused(store: EventStore, projections: Sequence[Projection]) -> list[Projection]:
    names = await read_paused(store)
    return [each for each in projections if each.name in names]


def paused_text(projections: Sequence[Projection]) -> str:
    """Return why reads from the tables of paused projections lack events, and what to do."""
    names = " ".join(each.name for each in projections)
    return f"their projection is paused: eventstore resume {names} lets the workers continue"


async def why_behind(store: EventStore, projections: Sequence[Projection]) -> str:
    """Return why the read tables are behind the log, as far as that is known."""
    standby = await read_standby(store, projections)
    if standby is not None and standby.lag_events:
        return STANDBY_IS_BEHIND
    if paused := await _paused(store, projections):
        return paused_text(paused)
    return "a worker is running, and will apply it" if await read_workers(store) else NO_WORKER


async def wait_for_log(
    store: EventStore, tenant: str, projections: Sequence[Projection], *, timeout: float
) -> dict[str, int]:
    """Wait until the projections have applied what the log holds now of a tenant, if a worker is running.

    Returns:
        The number of events that a projection has not applied, by its name; empty if all have applied all.
    """
    until = await end_of_log(store.connections.auditor)
    if (after := await applied_position(store, projections)) >= until:
        return {}
    written = await _written(store, tenant, after, until)
    if written and await read_workers(store):
        with suppress(NotCaughtUp):
            await wait_for_written(store, projections, written, timeout=timeout)
    checkpoints = await store.connections.reader.fetch(
        _CHECKPOINTS, {"projections": [projection.name for projection in projections]}
    )
    names, partitions, positions = map(list, zip(*checkpoints, strict=True))
    given = {"projections": names, "partitions": partitions, "positions": positions}
    range_of_log = {"tenant": tenant, "after": Int8(after), "until": Int8(until)}
    return dict(await store.log(Caller(tenant)).fetch(_UNAPPLIED, given | range_of_log))


async def lagging(
    store: EventStore, projections: Sequence[Projection], written: Written, *, on_primary: bool = False
) -> dict[int, int]:
    """Return the partitions in which a projection has not applied what was written, and the highest position in each.

    Partitions without any of the conversations do not count: each partition has a checkpoint of its own.
    """
    given = {
        "projections": [projection.name for projection in projections],
        "conversations": list(written),
        "positions": list(written.values()),
    }
    return dict(await _checkpoints(store, on_primary).fetch(LAGGING, given))


def _checkpoints(store: EventStore, on_primary: bool) -> Pool:
    return store.connections.primary_reader if on_primary else store.connections.reader


async def fetch_at_least(
    store: EventStore,
    caller: Caller,
    text: str,
    given: dict[str, Any],
    projections: Sequence[str],
    at_least: int,
    timeout: float,
    *,
    on_primary: bool = False,
) -> tuple[list[TupleRow], int]:
    """Return the rows of a statement once they hold what the caller's tenant appended up to a position.

    It takes one statement if they do already. The second result is the position up to which they hold its events.

    Raises:
        InputError: ``at_least`` is not a position.
        NotCaughtUp: the projections have not applied it within ``timeout`` seconds.
    """
    if not isinstance(at_least, int) or not 0 <= at_least < 2**63:
        raise InputError(f"at_least: {at_least!r} is not a position: give that of an append's result")
    text = at_least_text(text)
    given = given | {"projections": list(projections), "at_least": Int8(at_least)}
    tables = store.tables(caller, on_primary=on_primary)
    rows = await tables.fetch(text, given, cursor=RawRows)
    if (applied := rows[0][0]) < at_least:
        written = await written_between(store, caller.tenant, applied, at_least)
        await wait_for_written(store, select_projections(projections), written, timeout=timeout, on_primary=on_primary)
        rows = await tables.fetch(text, given | {"at_least": Int8(0)}, cursor=RawRows)
    return [row[1:] for row in rows if row[1] is not None], max(at_least, rows[0][0])


def at_least_text(text: str) -> str:
    """Return a statement that prepends to each row of another the position that the projections have applied."""
    return _AT_LEAST.format(position=POSITION_OF_ALL_PARTITIONS, page=text)


async def written_between(store: EventStore, tenant: str, after: int, until: int) -> Written:
    """Return the conversations that a tenant wrote to above ``after`` and up to ``until``, with their positions.

    If the tenant has no event at ``until``, nothing is known of that position, and all conversations count.
    """
    written = await _written(store, tenant, after, until)
    return written if until in written.values() else {None: until}


async def _written(store: EventStore, tenant: str, after: int, until: int) -> dict[UUID | None, int]:
    given = {"tenant": tenant, "after": Int8(after), "until": Int8(until)}
    return dict(await store.log(Caller(tenant)).fetch(_WRITTEN, given))
