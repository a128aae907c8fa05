"""Reading your writes: queries that wait until the projections have applied a position.

The tables follow the log in partitions of the conversations. Usually all of them have applied the position, and the
statement itself sees that. Otherwise the log tells which conversations the tenant wrote to in between, and only their
partitions are waited for, however far behind what others wrote keeps the rest. An event is in its table once the
checkpoint of its partition is at or above its position. All appends of the tenant that were acknowledged before the
read are seen in the log: they are committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from eventstore import Caller, EventStore
from eventstore.database.queries import query, query_without
from eventstore.errors import InputError
from eventstore.read import RawRows
from projections.checkpoints import Written, wait_for_written
from projections.projection import named

OF_ALL_PARTITIONS = query_without("projections", "position", frozenset({"partitions"}))
"""The position that projections have applied."""
_WRITTEN = query("projections", "written")


async def fetch_at_least(
    store: EventStore,
    caller: Caller,
    text: str,
    given: dict[str, Any],
    projections: Sequence[str],
    at_least: int | None,
    timeout: float,
) -> list[TupleRow]:
    """Return the rows of a statement, once they hold what the caller's tenant appended up to a position; None is any.

    If they do, which the statement itself tells, there is no other.

    Raises:
        InputError: ``at_least`` is no position.
        NotCaughtUp: they have not within ``timeout`` seconds.
    """
    if at_least is None:
        return await store.tables(caller).fetch(text, given, cursor=RawRows)
    rows, _ = await fetch_with_position(store, caller, text, given, projections, at_least, timeout)
    return rows


async def fetch_with_position(
    store: EventStore,
    caller: Caller,
    text: str,
    given: dict[str, Any],
    projections: Sequence[str],
    at_least: int,
    timeout: float,
) -> tuple[list[TupleRow], int]:
    """Return the rows of :func:`fetch_at_least`, and the position up to which they hold the tenant's events."""
    if not isinstance(at_least, int) or not 0 <= at_least < 2**63:
        raise InputError(f"at_least: {at_least!r} is no position: give that of an append's result")
    text = at_least_text(text)
    given = given | {"projections": list(projections), "at_least": Int8(at_least)}
    rows = await store.tables(caller).fetch(text, given, cursor=RawRows)
    if (applied := rows[0][0]) < at_least:
        written = await written_between(store, caller.tenant, applied, at_least)
        await wait_for_written(store, named(list(projections)), written, timeout=timeout)
        rows = await store.tables(caller).fetch(text, given | {"at_least": Int8(0)}, cursor=RawRows)
    return [row[1:] for row in rows if row[1] is not None], max(at_least, rows[0][0])


async def written_between(store: EventStore, tenant: str, after: int, until: int) -> Written:
    """Return the conversations that a tenant wrote to behind a position and up to one of its own, and where.

    If no event of the tenant is at ``until``, nothing is known of that position, and all conversations stand for it.
    """
    given = {"tenant": tenant, "after": Int8(after), "until": Int8(until)}
    found: dict[UUID | None, int] = dict(await store.log(Caller(tenant)).fetch(_WRITTEN, given))
    return found if until in found.values() else {None: until}


def at_least_text(page: str) -> str:
    """The statement that reads a page, and in each row first how far the projections are."""
    return query("projections", "at_least").format(position=OF_ALL_PARTITIONS, page=page)
