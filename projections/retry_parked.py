"""Retrying parked conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, translated
from projections.apply import Applier
from projections.parking import Parked, fold_or_park, may_be_event_error, parked
from projections.projection import PROJECTIONS, Projection

_BATCH_OF_ONE = query("projections", "batch_of_one")
_UNPARK = query("projections", "unpark")


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of a retry.

    Attributes:
        applied: conversations that are up with the others again.
        parked: those that failed once more.
    """

    applied: int
    parked: int


async def retry(
    store: EventStore, projections: Sequence[Projection] = PROJECTIONS, *, tenant: str | None = None
) -> Retried:
    """Applies the events of parked conversations, in their order, up to where the others of their partitions are.

    Each conversation in a transaction of its own, in which nobody else applies its partition.
    """
    applied = failed = 0
    applier = await Applier.open(store, view=_BATCH_OF_ONE)
    try:
        for projection in projections:
            waiting = await parked(store, [projection], tenant=tenant)
            made_by = await applier.register(projection) if waiting else None
            for one in waiting:
                if made_by is not None and await _retry(applier, made_by, one):
                    applied += 1
                else:
                    failed += 1
    finally:
        await applier.close()
    return Retried(applied, failed)


async def _retry(applier: Applier, projection: Projection, one: Parked) -> bool:
    """Whether the conversation is up with the others; False if it is parked, again or still."""
    connection = applier.connection
    parameters = {
        "projection": projection.name,
        "tenant_id": one.tenant_id,
        "conversation_id": one.conversation_id,
    }
    try:
        with translated():
            async with connection.transaction():
                row = await (await connection.execute(_UNPARK, parameters)).fetchone()
                if row is None:  # somebody else was faster
                    return True
                lower, upper, tries, *_ = row
                return not await fold_or_park(connection, projection, "live", lower, upper, tries=tries + 1)
    except EventStoreError as error:
        if not may_be_event_error(error):
            raise
        return False  # rolled back: it is parked as it was
