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
