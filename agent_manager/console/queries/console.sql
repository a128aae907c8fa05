-- name: messages_by_minute
-- The number of messages of each of the last sixty minutes that has some, of the newest ones, at most so many.
SELECT date_trunc('minute', m.created_at) AS minute, count(*)
  FROM (SELECT m.created_at
          FROM messages m
         WHERE m.tenant_id = %(tenant)s
           AND m.created_at > now() - interval '1 hour'
           AND m.created_at <= now()
         ORDER BY m.created_at DESC
         LIMIT %(limit)s) AS m
 GROUP BY 1
 ORDER BY 1

-- name: tools
-- How often each tool was called in messages of a period, of the newest twenty thousand messages of assistants.
SELECT left(t.name, 200) AS name, count(*)
  FROM (SELECT m.extra
          FROM messages m
         WHERE m.tenant_id = %(tenant)s
           AND m.created_at >= coalesce(%(since)s::timestamptz, '-infinity')
           AND m.created_at < coalesce(%(until)s::timestamptz, 'infinity')
           AND (m.actor = %(actor)s OR %(actor)s::text IS NULL)
           AND m.role = 'assistant'
         ORDER BY m.created_at DESC
         LIMIT 20000) AS m
 CROSS JOIN LATERAL jsonb_path_query(m.extra, 'lax $.tool_calls[*].function.name') AS c (value)
 CROSS JOIN LATERAL (SELECT c.value #>> '{}' AS name) AS t
 WHERE jsonb_typeof(c.value) = 'string'
 GROUP BY 1
 ORDER BY 2 DESC, 1
 LIMIT 50

-- name: pending
-- The messages that await an answer, the oldest first.
SELECT p.conversation_id, p.id, p.created_at, c.name
  FROM pending_messages p
  JOIN conversations c
    ON c.tenant_id = p.tenant_id
   AND c.id = p.conversation_id
   AND NOT c.is_deleted
 WHERE p.tenant_id = %(tenant)s
 ORDER BY p.position
 LIMIT %(limit)s

-- name: awaiting
-- The messages of a period that await an answer, the oldest first, from a position on.
SELECT p.conversation_id, p.id, m.version, m.role, m.actor, p.created_at, left(m.content, 400), coalesce(m.metadata ? %(mark)s, false),
       p.position
  FROM pending_messages p
  JOIN messages m
    ON m.tenant_id = p.tenant_id
   AND m.conversation_id = p.conversation_id
   AND m.id = p.id
 WHERE p.tenant_id = %(tenant)s
   AND p.position > %(after)s
   AND p.created_at >= coalesce(%(since)s::timestamptz, '-infinity')
   AND p.created_at < coalesce(%(until)s::timestamptz, 'infinity')
 ORDER BY p.position
 LIMIT %(limit)s

-- name: found
-- What a list shows of conversations by their ids, and whether an actor caused an event in them.
SELECT c.id, c.name, c.is_active, c.is_deleted,
       EXISTS (SELECT
                 FROM conversation_actors a
                WHERE a.tenant_id = c.tenant_id
                  AND a.conversation_id = c.id
                  AND a.actor = %(actor)s) AS has_actor
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND c.id = ANY (%(ids)s::uuid[])

-- name: versions
-- The versions of events of a conversation.
SELECT e.id, e.version
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.id = ANY (%(ids)s::uuid[])

-- name: acts
-- The latest administrative acts, of all tenants: of the latest of each tenant, so that the time does not depend on how
-- many there are. Each step of the first part finds the next tenant by the index.
WITH RECURSIVE tenants AS (
    SELECT min(e.tenant_id) AS tenant_id
      FROM events e
     UNION ALL
    SELECT (SELECT min(e.tenant_id) FROM events e WHERE e.tenant_id > t.tenant_id)
      FROM tenants t
     WHERE t.tenant_id IS NOT NULL
)
SELECT a.recorded_at, a.tenant_id, a.actor, substr(a.action, length('eventstore.') + 1) AS act, a.content AS details
  FROM tenants t
 CROSS JOIN LATERAL (
           SELECT a.*
             FROM audit_trail a
            WHERE a.tenant_id = t.tenant_id
              AND a.conversation_id = administration_id()
            ORDER BY a.version DESC
            LIMIT 20
       ) AS a
 ORDER BY a.position DESC
 LIMIT 20

-- name: receipts
-- The latest receipts of erasures of a tenant.
SELECT e.timestamp, e.position, e.actor, e.conversation_id, e.content
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.event_type IN ('conversation.erased', 'event.erased')
 ORDER BY e.position DESC
 LIMIT %(limit)s

-- name: held
-- Which conversations of holds a conversation is, or is continued by; and which users of holds caused events of it.
SELECT h.id::text
  FROM unnest(%(conversations)s::uuid[]) AS h (id)
 WHERE EXISTS (SELECT
                 FROM conversation_ancestry(%(tenant)s, h.id) a
                WHERE a.conversation_id = %(conversation_id)s)
 UNION ALL
SELECT a.actor::text
  FROM conversation_actors a
 WHERE a.tenant_id = %(tenant)s
   AND a.conversation_id = %(conversation_id)s
   AND a.actor = ANY (%(users)s)
