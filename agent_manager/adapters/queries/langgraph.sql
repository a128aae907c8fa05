-- name: thread_events
-- The events of a conversation after a version. The contents of messages and large values are read when they are needed.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type, e.actor,
       CASE WHEN e.event_type IN ('message.added', 'langgraph.value') THEN 'null' ELSE e.content END AS content,
       e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version > %(after)s
 ORDER BY e.version
 LIMIT %(limit)s

-- name: thread_payloads
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type, e.actor,
       e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version = ANY (%(versions)s::integer[])

-- name: threads
-- The conversations that have checkpoints, or checkpoints of runs. The line with a parameter that is not given is left
-- out. A run's first checkpoint in a conversation names the run; the others differ from it in nothing there.
SELECT DISTINCT e.conversation_id
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.event_type = 'langgraph.checkpoint'
   AND e.content #>> '{metadata,run_id}' = ANY (%(runs)s::text[])

-- name: items
-- The items with these paths and keys that have not expired.
SELECT i.conversation_id, i.path, i.key, i.value, i.created_at, i.updated_at,
       i.expires_at IS NOT NULL AND i.expires_at - now() < i.ttl * 0.9 AS needs_refresh
  FROM unnest(%(paths)s::text[], %(keys)s::text[]) AS w (path, key)
  JOIN langgraph_items i
    ON i.path = w.path
   AND i.key = w.key
 WHERE i.tenant_id = %(tenant)s
   AND i.owner = %(owner)s
   AND i.value IS NOT NULL
   AND coalesce(i.expires_at > now(), true)

-- name: search_items
-- filter: pairs of an operator and a value for members of the values of items, as [[member, operator, value], …].
SELECT i.conversation_id, i.path, i.key, i.value, i.created_at, i.updated_at,
       i.expires_at IS NOT NULL AND i.expires_at - now() < i.ttl * 0.9 AS needs_refresh
  FROM langgraph_items i
 WHERE i.tenant_id = %(tenant)s
   AND i.owner = %(owner)s
   AND i.path >= %(first)s
   AND i.path < %(last)s
   AND i.value IS NOT NULL
   AND coalesce(i.expires_at > now(), true)
   AND NOT EXISTS (
           SELECT
             FROM jsonb_array_elements(%(filter)s::jsonb) AS f (condition)
            CROSS JOIN LATERAL (SELECT i.value -> (f.condition ->> 0) AS value, f.condition -> 2 AS wanted) AS m
            WHERE CASE f.condition ->> 1
                      WHEN '$eq' THEN m.value = m.wanted
                      WHEN '$ne' THEN m.value IS DISTINCT FROM m.wanted
                      ELSE jsonb_typeof(m.value) = jsonb_typeof(m.wanted)
                           AND CASE f.condition ->> 1
                                   WHEN '$gt' THEN m.value > m.wanted
                                   WHEN '$gte' THEN m.value >= m.wanted
                                   WHEN '$lt' THEN m.value < m.wanted
                                   WHEN '$lte' THEN m.value <= m.wanted
                               END
                  END IS NOT TRUE
       )
 ORDER BY i.updated_at DESC, i.path, i.key
 LIMIT %(limit)s
OFFSET %(offset)s

-- name: item_vectors
-- Of the items that match, those that have embeddings; see search_items.
SELECT i.path, i.key, i.vectors
  FROM langgraph_items i
 WHERE i.tenant_id = %(tenant)s
   AND i.owner = %(owner)s
   AND i.path >= %(first)s
   AND i.path < %(last)s
   AND i.vectors IS NOT NULL
   AND coalesce(i.expires_at > now(), true)
   AND NOT EXISTS (
           SELECT
             FROM jsonb_array_elements(%(filter)s::jsonb) AS f (condition)
            CROSS JOIN LATERAL (SELECT i.value -> (f.condition ->> 0) AS value, f.condition -> 2 AS wanted) AS m
            WHERE CASE f.condition ->> 1
                      WHEN '$eq' THEN m.value = m.wanted
                      WHEN '$ne' THEN m.value IS DISTINCT FROM m.wanted
                      ELSE jsonb_typeof(m.value) = jsonb_typeof(m.wanted)
                           AND CASE f.condition ->> 1
                                   WHEN '$gt' THEN m.value > m.wanted
                                   WHEN '$gte' THEN m.value >= m.wanted
                                   WHEN '$lt' THEN m.value < m.wanted
                                   WHEN '$lte' THEN m.value <= m.wanted
                               END
                  END IS NOT TRUE
       )
 LIMIT %(limit)s

-- name: item_paths
SELECT DISTINCT i.path
  FROM langgraph_items i
 WHERE i.tenant_id = %(tenant)s
   AND i.owner = %(owner)s
   AND i.path >= %(first)s
   AND i.path < %(last)s
   AND i.value IS NOT NULL
   AND coalesce(i.expires_at > now(), true)
 ORDER BY i.path

-- name: expired_items
SELECT i.path, i.key
  FROM langgraph_items i
 WHERE i.tenant_id = %(tenant)s
   AND i.owner = %(owner)s
   AND i.expires_at <= now()
