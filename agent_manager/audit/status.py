"""The state of sealing, for operators."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent_manager.audit.notes import Checkpoint
from agent_manager.audit.sealed_tree import PACKAGE
from eventstore import EventStore
from eventstore.database.queries import query
from projections.status import EXACT_LAG


@dataclass(frozen=True, slots=True)
class SealedLog:
    """The sealed part of the log.

    Attributes:
        events: that are sealed.
        position: of the last of them.
        sealed_at: the time of the newest checkpoint; None if there is none.
        origin: the name of the log; empty if there is no checkpoint.
        key_ids: of the keys that have signed it.
        cosignatures: of it, by witnesses.
        lag_events: events that are not sealed yet: exact below 10,000.
        lag_seconds: the age of the oldest of them.
    """

    events: int = 0
    position: int = 0
    sealed_at: datetime | None = None
    origin: str = ""
    key_ids: tuple[str, ...] = ()
    cosignatures: int = 0
    lag_events: int = 0
    lag_seconds: float = 0.0


async def read_sealed_log(store: EventStore) -> SealedLog:
    """Return how far the log is sealed. It takes the same time however large the log is."""
    [row] = await store.connections.projector.fetch(query(PACKAGE, "sealed_log"), {"exact": EXACT_LAG})
    events, position, sealed_at, note, cosignatures, lag_events, lag_seconds = row
    if note is None:
        return SealedLog(lag_events=lag_events, lag_seconds=lag_seconds)
    checkpoint = Checkpoint.parse(note)
    key_ids = tuple(key_id for _, key_id, _ in checkpoint.signatures)
    return SealedLog(events, position, sealed_at, checkpoint.origin, key_ids, cosignatures, lag_events, lag_seconds)
