"""Long read tables with arbitrary contents, for tests of plans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from support.scoped_queries import open_as

OF_CONVERSATION = 50
"""Messages of a conversation, and tasks of one; conversation 0 has a fifth of all."""
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_STEP = timedelta(seconds=1)

_CONVERSATION = """
('00000000-0000-0000-0000-' || lpad((CASE WHEN p % 5 = 0 THEN 0 ELSE p / {each} END)::text, 12, '0'))::uuid
"""
_FILL = """
INSERT INTO conversations (id, tenant_id, name, is_active, is_deleted, created_at, updated_at, message_count, version)
SELECT ('00000000-0000-0000-0000-' || lpad(p::text, 12, '0'))::uuid,
       CASE WHEN p % 4 = 3 THEN 'other' ELSE 'default' END, 'name', p % 10 <> 0, p % 50 = 0,
       {begin} + p * {step}, {begin} + (p * 7 % {size}) * {step}, 1, 1
  FROM generate_series(1, {size}) AS p;
INSERT INTO conversation_actors (tenant_id, conversation_id, actor, created_at, updated_at)
SELECT c.tenant_id, c.id, a.actor, c.created_at, c.updated_at
  FROM conversations c
 CROSS JOIN LATERAL (
           VALUES ('agent'), ('user-' || (extract(epoch FROM c.created_at)::bigint % ({size} / 100))::text)
       ) AS a (actor);
INSERT INTO messages (id, conversation_id, tenant_id, version, role, content, created_at, actor)
SELECT gen_random_uuid(), {conversation}, CASE WHEN p % 4 = 3 THEN 'other' ELSE 'default' END, p,
       CASE WHEN p % 3 = 0 THEN 'user' ELSE 'assistant' END, repeat('text ', 20), {begin} + p * {step}, 'agent'
  FROM generate_series(1, {size}) AS p;
INSERT INTO tasks (id, conversation_id, tenant_id, version, first_version, status, description, created_at, updated_at)
SELECT gen_random_uuid(), {conversation}, CASE WHEN p % 4 = 3 THEN 'other' ELSE 'default' END, p, p,
       CASE WHEN p % 20 = 1 THEN 'failed' ELSE 'completed' END, 'text', {begin} + p * {step}, {begin} + p * {step}
  FROM generate_series(1, {size}) AS p;
INSERT INTO task_artifacts (task_id, conversation_id, tenant_id, version, artifact_id, extends, last_chunk, parts)
SELECT t.id, t.conversation_id, t.tenant_id, t.version, 'a', false, true, '[]'
  FROM tasks t;
"""
TABLES = ("conversations", "conversation_actors", "messages", "tasks", "task_artifacts")


def time_of(number: int) -> datetime:
    """Return the time at which a row was created."""
    return _BEGIN + number * _STEP


def conversation(number: int) -> UUID:
    """The id of one of the conversations; that of 0 is the long one."""
    return UUID(f"00000000-0000-0000-0000-{number:012d}")


def fill(url: str, size: int, *, analyzed: bool) -> None:
    """Writes so many rows into each table.

    Args:
        analyzed: whether the planner has statistics; otherwise it gets none later either.
    """
    values = {
        "size": str(size),
        "begin": f"timestamptz '{_BEGIN.isoformat()}'",
        "step": "interval '1 second'",
        "conversation": _CONVERSATION.format(each=OF_CONVERSATION).strip(),
    }
    with open_as(url, "eventstore_owner") as connection:
        for table in TABLES:
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
        connection.execute(_FILL.format(**values).encode())
        if analyzed:
            connection.execute(f"ANALYZE {', '.join(TABLES)}".encode())
