"""Parked conversations: listing and retrying them. :mod:`projections.failure_isolation` parks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from eventstore import EventStore
from eventstore.administration import record_act
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, translated
from projections.apply import Applier
from projections.failure_isolation import FailureIsolation, may_be_event_error
from projections.projection import PROJECTIONS, Projection

_PARKED = query("projections", "parked")
_UNPARK = query("projections", "unpark")
_BATCH_OF_ONE_VIEW = query("projections", "batch_of_one")


@dataclass(frozen=True, slots=True)
class Parked:
    """A conversation that a projection does not apply further.

    Attributes:
        position, version, event_id, event_type: the members of the event that failed.
        sqlstate: the SQLSTATE of its error; ``PYERR`` if a projection in Python raised it.
        tries: how often the event has failed.
    """

    projection: str
    tenant_id: str
    conversation_id: UUID
    position: int
    version: int
    event_id: UUID
    event_type: str
    sqlstate: str
    error: str
    tries: int
    parked_at: datetime


@dataclass(frozen=True, slots=True)
class Retried:
    """The outcome of a retry.

    Attributes:
        applied: conversations that the projection has caught up with.
        parked: conversations that failed again.
    """

    applied: int
    parked: int


async def read_parked(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    tenant: str | None = None,
    limit: int | None = None,
) -> list[Parked]:
    """Return the conversations that are parked in the live tables, the oldest first.

    Args:
        tenant: only those of this tenant.
        limit: so many at most.
    """
    names = [projection.name for projection in projections]
    rows = await store.connections.projector.fetch(_PARKED, {"projections": names, "tenant": tenant, "limit": limit})
    return [Parked(*row) for row in rows]


async def retry_parked(
    store: EventStore, projections: Sequence[Projection] = PROJECTIONS, *, tenant: str | None = None
) -> Retried:
    """Apply the events of parked conversations, in order, up to where the projection has applied their partitions.

    Each conversation has a transaction of its own, during which no other session applies its partition.
    """
    outcomes = []
    async with await Applier.open(store, view=_BATCH_OF_ONE_VIEW) as applier:
        for projection in projections:
            conversations = await read_parked(store, [projection], tenant=tenant)
            made_by = await applier.register(projection) if conversations else None
            for conversation in conversations:
                is_applied = made_by is not None and await _retry(applier, made_by, conversation)
                outcomes.append(is_applied)
    return Retried(outcomes.count(True), outcomes.count(False))


async def _retry(applier: Applier, projection: Projection, conversation: Parked) -> bool:
    """Return whether a parked conversation could be applied; if not, it is parked still, or again."""
    parameters = {
        "projection": projection.name,
        "tenant_id": conversation.tenant_id,
        "conversation_id": conversation.conversation_id,
    }
    try:
        with translated():
            async with applier.connection.transaction():
                row = await (await applier.connection.execute(_UNPARK, parameters)).fetchone()
                if row is None:  # another session has retried it
                    return True
                lower, upper, tries, *_ = row
                isolation = FailureIsolation(applier.connection, projection, "live", tries + 1)
                is_applied = await isolation.fold_or_park(lower, upper) == 0
                details = {"projection": projection.name, "conversation": str(conversation.conversation_id)}
                await record_act(
                    applier.connection, conversation.tenant_id, "parked_retried", details | {"applied": is_applied}
                )
                return is_applied
    except EventStoreError as error:
        if not may_be_event_error(error):
            raise
        return False  # rolled back: it is parked as before
