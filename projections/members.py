"""Proving that who may see which conversation is what the log says, of all tenants at once."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.read import horizon
from projections.compare import Difference
from projections.verify import Row, Verified

NAME = "members"
"""In the place of a projection's name: the table is written by appends, and by no projection."""
_TABLE = "conversation_members"
_DIFFERING = query("projections", "differing_members")


async def verify_members(store: EventStore) -> Verified:
    """Verifies the members of all conversations, in one snapshot; of a conversation those are counted that differ."""
    position = await horizon(store.parts.projector)
    found = await store.parts.projector.fetch(_DIFFERING)
    counts: dict[tuple[str, UUID], Counter[str]] = {}
    rows = []
    for tenant, conversation, user, expected, is_found in found:
        count = counts.setdefault((tenant, conversation), Counter())
        for side, access in (("expected", expected), ("rows", is_found)):
            if access is not None:
                count[side] += 1
                rows.append(Row(_TABLE, side == "expected", f"({tenant},{conversation},{user},{access})"))
    differences = [
        Difference(_TABLE, tenant, conversation, count["rows"], count["expected"])
        for (tenant, conversation), count in counts.items()
    ]
    return Verified(NAME, position, 0, differences, rows)
