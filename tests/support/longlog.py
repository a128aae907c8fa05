"""A long log, generated without digests, for tests of plans and of reading."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from support.scoped_queries import open_as

CONVERSATION_LENGTH = 50
RARE = 500
"""Every so many-th event is of the tenant ``rare``, the others are of ``default``."""
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_STEP = timedelta(milliseconds=10)

_FILL = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
                    content, metadata, salt, digest)
SELECT p, %(begin)s + p * %(step)s, (p - 1) / %(conversations)s + 1, 1,
       ('00000000-0000-0000-0000-' || lpad(((p - 1) %% %(conversations)s)::text, 12, '0'))::uuid, gen_random_uuid(),
       CASE WHEN p %% %(rare)s = 0 THEN 'rare' ELSE 'default' END,
       CASE WHEN p %% 3 = 0 THEN 'noted' ELSE 'message.added' END,
       CASE WHEN p %% 7 = 0 THEN 'ana' ELSE '' END,
       jsonb_build_object('role', 'user', 'content', repeat('text ', 40)), '{}', '', sha256('')
  FROM generate_series(1, %(size)s) AS p
"""


def time_of(position: int) -> datetime:
    """The timestamp of the event at that position."""
    return _BEGIN + position * _STEP


def conversation(number: int) -> UUID:
    """The id of one of the conversations, numbered from 0; their events alternate."""
    return UUID(f"00000000-0000-0000-0000-{number:012d}")


def fill(url: str, size: int, *, analyzed: bool) -> None:
    """Writes events 1 to ``size``.

    Args:
        analyzed: whether the planner has statistics; otherwise it gets none later either.
    """
    with open_as(url, "eventstore_owner") as connection:
        connection.execute("ALTER TABLE events SET (autovacuum_enabled = false)")
        values = {
            "begin": _BEGIN,
            "step": _STEP,
            "conversations": size // CONVERSATION_LENGTH,
            "rare": RARE,
            "size": size,
        }
        connection.execute(_FILL, values)
        connection.execute("SELECT setval('events_position', %s)", (size,))
        if analyzed:
            connection.execute("ANALYZE events")
