"""Reading one's own writes: a statement whose rows are those of a time when the projections had applied a position."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from eventstore import Caller, EventStore
from eventstore.database.queries import query, query_without
from eventstore.errors import InputError
from eventstore.paging import RawRows
from projections.checkpoints import wait_for
from projections.projection import named

OF_ALL_SHARES = query_without("projections", "position", frozenset({"shares"}))
"""The position that projections have applied."""


async def fetch_at_least(
    store: EventStore,
    caller: Caller,
    text: str,
    given: dict[str, Any],
    projections: Sequence[str],
    at_least: int | None,
    timeout: float,
) -> list[TupleRow]:
    """The rows of a statement, as they are once the projections have applied a position; None is any.

    Whether they have is seen by the same statement: where they have, nothing else is asked.

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
    """The rows, as :func:`fetch_at_least` gives them, and the position that the projections have applied in them."""
    if not isinstance(at_least, int) or not 0 <= at_least < 2**63:
        raise InputError(f"at_least: {at_least!r} is no position: give that of an append's result")
    text = at_least_text(text)
    given = given | {"projections": list(projections), "at_least": Int8(at_least)}
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        rows = await store.tables(caller).fetch(text, given, cursor=RawRows)
        if rows[0][0] >= at_least:
            return [row[1:] for row in rows if row[1] is not None], rows[0][0]
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        await wait_for(store, at_least, projections=named(list(projections)), timeout=left)


def at_least_text(page: str) -> str:
    """The statement that reads a page, and in each row first how far the projections are."""
    return query("projections", "at_least").format(position=OF_ALL_SHARES, page=page)
