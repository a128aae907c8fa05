"""Pausing projections: their live tables stay as they are, while the log and all other projections go on.

A pause is a row of ``paused_projections``, which ``begin_batch`` looks for once it holds the locks of the checkpoints.
:func:`pause` writes it under the same locks: when it returns, no batch is being applied, and none will be until
:func:`resume`, by whichever worker on whichever machine. A paused projection is not rebuilt.

Workers try a paused projection again every other second. Reads that must include what was written after the pause fail
with :class:`~eventstore.errors.ProjectionPaused`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from eventstore import EventStore
from eventstore.administration import set_administrator
from eventstore.database.queries import query
from eventstore.errors import translated
from projections.projection import Projection

_PAUSE = query("projections", "pause")
_RESUME = query("projections", "resume")
_PAUSED = query("projections", "paused")


async def pause(store: EventStore, projections: Sequence[Projection]) -> list[str]:
    """Pause projections, after the batches that are being applied. Return the names of those that were not paused."""
    return await _change(store, _PAUSE, projections)


async def resume(store: EventStore, projections: Sequence[Projection]) -> list[str]:
    """Resume projections: workers continue where they were paused. Return the names of those that were paused."""
    return await _change(store, _RESUME, projections)


async def _change(store: EventStore, text: str, projections: Sequence[Projection]) -> list[str]:
    with translated():
        async with store.connections.projector.transaction(None) as connection:
            await set_administrator(connection)
            names = {"projections": sorted(each.name for each in projections)}
            rows = await (await connection.execute(text, names)).fetchall()
    return sorted(name for (name,) in rows)


async def read_paused(store: EventStore) -> dict[str, datetime]:
    """Return the paused projections, each with the time since which it is paused."""
    return dict(await store.connections.primary_reader.fetch(_PAUSED))
