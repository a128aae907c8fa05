-- name: messages_by_minute
-- The number of messages of each of the last sixty minutes that has some, of the newest twenty thousand.
SELECT date_trunc('minute', m.created_at) AS minute, count(*)
  FROM (SELECT m.created_at
          FROM messages m
         WHERE m.tenant_id = %(tenant)s
           AND m.created_at > now() - interval '1 hour'
           AND m.created_at <= now()
         ORDER BY m.created_at DESC
         LIMIT 20000) AS m
 GROUP BY 1
 ORDER BY 1

-- name: tools
-- How often each tool was called in messages of a period, of the newest twenty thousand messages of assistants.
SELECT left(t.name, 200) AS name, count(*)
  FROM (SELECT m.extra
          FROM messages m
         WHERE m.tenant_id = %(tenant)s
           AND m.created_at >= coalesce(%(since)s::date, '-infinity')
           AND m.created_at < coalesce(%(until)s::date + 1, 'infinity')
           AND m.role = 'assistant'
         ORDER BY m.created_at DESC
         LIMIT 20000) AS m
 CROSS JOIN LATERAL jsonb_path_query(m.extra, 'lax $.tool_calls[*].function.name') AS c (value)
 CROSS JOIN LATERAL (SELECT c.value #>> '{}' AS name) AS t
 WHERE jsonb_typeof(c.value) = 'string'
 GROUP BY 1
 ORDER BY 2 DESC, 1
 LIMIT 50

-- name: progress
-- How far the live tables of each projection are, when they were last changed, and by which definition they are made.
SELECT c.projection, min(c.position), max(c.updated_at), min(d.definition_hash)
  FROM checkpoints c
  JOIN projection_definitions d
    ON d.projection = c.projection
   AND d.stage = c.stage
 WHERE c.stage = 'live'
 GROUP BY c.projection

-- name: acts
-- The latest administrative acts, of all tenants.
SELECT a.recorded_at, a.tenant_id, a.actor, a.act, a.details
  FROM audit_acts a
 ORDER BY a.position DESC
 LIMIT 20
