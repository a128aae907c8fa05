"""The administrative acts that concern rules, their runs, and holds."""

from __future__ import annotations

from typing import Any

from eventstore import EventStore
from eventstore.administration import ACT_PREFIX, ADMINISTRATION


async def recorded(store: EventStore) -> list[tuple[str, dict[str, Any], str]]:
    """Return the names, contents and actors of these acts of the tenant."""
    acts = [(event.event_type.removeprefix(ACT_PREFIX), event) async for event in store.read(ADMINISTRATION)]
    return [(act, event.content, event.actor) for act, event in acts if act.startswith(("hold_", "retention_"))]
