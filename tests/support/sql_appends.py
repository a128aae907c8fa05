"""Calls of the SQL append functions with unchecked arguments."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from support.logins import Session

_ONE = """
SELECT a.outcome::text, a.position, a.version
  FROM append_one(%(tenant)s, %(conversation)s, %(expected)s, %(id)s, %(type)s, 1::smallint, '', %(content)s,
                  %(metadata)s, 0, %(user)s) AS a
"""
_GROUP = """
SELECT unnest(a.outcomes)::text
  FROM append_group(%(tenants)s::text[], %(conversations)s::uuid[], array_fill(-2, ARRAY[%(targets)s]),
                    %(nos)s::integer[], %(places)s::integer[], %(ids)s::uuid[], %(types)s::text[],
                    array_fill(1::smallint, ARRAY[%(events)s]), array_fill(''::text, ARRAY[%(events)s]),
                    %(contents)s::jsonb[], array_fill('{}'::jsonb, ARRAY[%(events)s]), %(users)s::text[], -1) AS a
"""
_EVENTS = """
SELECT a.position
  FROM append_events(ARRAY[%(tenant)s], ARRAY[%(conversation)s::uuid], ARRAY[-2], ARRAY[1], ARRAY[gen_random_uuid()],
                     ARRAY[%(type)s], ARRAY[1::smallint], ARRAY[''], ARRAY[%(content)s::jsonb], ARRAY['{}'::jsonb]) AS a
"""


def append_one(
    session: Session,
    tenant: str,
    conversation: UUID,
    user: str = "",
    event_type: str = "noted",
    content: Any = None,
    *,
    event_id: UUID | None = None,
    expected: int = -2,
    metadata: Any = None,
) -> str:
    """Append one event with ``append_one``; return the outcome."""
    given = {
        "tenant": tenant,
        "conversation": conversation,
        "expected": expected,
        "id": event_id or uuid4(),
        "type": event_type,
        "content": Jsonb(content),
        "metadata": Jsonb({} if metadata is None else metadata),
        "user": user,
    }
    row = session.execute(_ONE, given).fetchone()
    assert row is not None
    return str(row[0])


def share(session: Session, tenant: str, conversation: UUID, user: str, whom: str, access: str | None = "read") -> str:
    """Share a conversation, or unshare it if ``access`` is None; return the outcome."""
    if access is None:
        return append_one(session, tenant, conversation, user, "conversation.unshared", {"user": whom})
    return append_one(session, tenant, conversation, user, "conversation.shared", {"user": whom, "access": access})


def append_group(session: Session, *events: tuple[str, UUID, str, str, Any]) -> list[str]:
    """Append events (tenant, conversation, user, type, content) with ``append_group``; return the outcomes."""
    targets = list(dict.fromkeys((tenant, conversation) for tenant, conversation, *_ in events))
    given = {
        "tenants": [tenant for tenant, _ in targets],
        "conversations": [conversation for _, conversation in targets],
        "targets": len(targets),
        "nos": list(range(len(events))),
        "places": [targets.index((tenant, conversation)) + 1 for tenant, conversation, *_ in events],
        "ids": [uuid4() for _ in events],
        "types": [event_type for *_, event_type, _ in events],
        "contents": [Jsonb(content) for *_, content in events],
        "users": [user for _, _, user, _, _ in events],
        "events": len(events),
    }
    return [outcome for (outcome,) in session.execute(_GROUP, given).fetchall()]


def append_events(
    session: Session, tenant: str, conversation: UUID, event_type: str = "noted", content: Any = None
) -> None:
    """Append one event with ``append_events``, for the current tenant and user."""
    given = {"tenant": tenant, "conversation": conversation, "type": event_type, "content": Jsonb(content)}
    session.execute(_EVENTS, given)


def members(session: Session, conversation: UUID) -> dict[str, str]:
    """Return the members of a conversation by ``members_of``, with their access."""
    return dict(session.execute("SELECT user_id, access FROM members_of(%s)", (conversation,)).fetchall())
