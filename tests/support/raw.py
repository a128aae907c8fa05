"""Appends as the server sees them: for tests that hold, break or interleave transactions themselves."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from eventstore import ApplicationEvent

# The current tenant is that of the events, in the transaction of the append.
_APPEND = """
SELECT a.position
  FROM set_config('eventstore.tenant', %(tenant)s, true) AS scope (tenant),
       append_events(ARRAY[scope.tenant], ARRAY[%(conversation)s::uuid], ARRAY[-2],
                     array_fill(1, ARRAY[%(count)s::integer]), %(ids)s::uuid[],
                     array_fill('noted'::text, ARRAY[%(count)s]), array_fill(1::smallint, ARRAY[%(count)s]),
                     array_fill(''::text, ARRAY[%(count)s]), %(contents)s::jsonb[],
                     array_fill('{}'::jsonb, ARRAY[%(count)s])) AS a
"""


class _Note:
    """Makes small events; called with what they hold."""

    conversation = UUID("00000000-0000-4000-8000-000000000001")

    def __call__(self, content: Any = None, event_type: str = "noted") -> ApplicationEvent:
        return ApplicationEvent(event_type, content)


note = _Note()


def _parameters(
    contents: tuple[Any, ...], conversation: UUID | None, tenant: str, ids: list[UUID] | None = None
) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "conversation": conversation or uuid4(),
        "count": len(contents),
        "ids": ids or [uuid4() for _ in contents],
        "contents": [Jsonb(content) for content in contents],
    }


def append_raw(
    connection: psycopg.Connection[Any], *contents: Any, conversation: UUID | None = None, tenant: str = "default"
) -> list[int]:
    """Appends small events to one conversation, in the connection's transaction; returns their positions."""
    rows = connection.execute(_APPEND, _parameters(contents, conversation, tenant)).fetchall()
    return [position for (position,) in rows]


async def append_raw_async(
    connection: psycopg.AsyncConnection[Any],
    *contents: Any,
    conversation: UUID | None = None,
    tenant: str = "default",
    ids: list[UUID] | None = None,
) -> list[int]:
    """The same on an asynchronous connection."""
    cursor = await connection.execute(_APPEND, _parameters(contents, conversation, tenant, ids))
    return [position for (position,) in await cursor.fetchall()]


_INSERT = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
                    content, metadata, salt, digest)
SELECT n.place, n.moment, n.version, 1::smallint, n.conversation, n.id, n.tenant, n.type, '', n.content, '{}', n.salt,
       event_digest(n.salt, n.place, n.moment, n.version, 1::smallint, n.conversation, n.id, n.tenant, n.type, '',
                    n.content, '{}')
  FROM (SELECT nextval('events_position') AS place, clock_timestamp() AS moment, %(tenant)s::text AS tenant,
               %(conversation)s::uuid AS conversation, %(type)s::text AS type, %(content)s::jsonb AS content,
               gen_random_uuid() AS id, uuid_send(gen_random_uuid()) AS salt,
               (SELECT 1 + coalesce(max(e.version), 0)
                  FROM events e
                 WHERE e.tenant_id = %(tenant)s
                   AND e.conversation_id = %(conversation)s) AS version) AS n
RETURNING id
"""


def insert_unchecked(url: str, conversation: UUID, event_type: str, content: Any, tenant: str = "default") -> UUID:
    """Put an event into the log as a superuser, around every check of the append functions; return its id."""
    given = {"tenant": tenant, "conversation": conversation, "type": event_type, "content": Jsonb(content)}
    with psycopg.connect(url) as connection:
        row = connection.execute(_INSERT, given).fetchone()
    assert row is not None
    return UUID(str(row[0]))
