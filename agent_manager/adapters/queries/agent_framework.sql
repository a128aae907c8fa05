-- name: checkpoint_events
-- These events of a conversation in order, each with whether the conversation shows it.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest,
       NOT EXISTS (SELECT FROM hiding_events(e.tenant_id, e.conversation_id, e.version)) AS is_shown
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.id = ANY (%(ids)s)
 ORDER BY e.version

-- name: checkpoints_of_workflow
-- The events of a workflow's checkpoints that their conversation shows, in order, without their contents.
SELECT e.id, e.event_type, e.content ->> 'checkpoint_id', e.content ->> 'timestamp'
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND NOT EXISTS (SELECT FROM hiding_events(e.tenant_id, e.conversation_id, e.version))
   AND e.event_type IN ('agent_framework.checkpoint', 'agent_framework.checkpoint_deleted')
   AND e.actor = %(workflow)s  -- which an erased event has not any more
 ORDER BY e.version
