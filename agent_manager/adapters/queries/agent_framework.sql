-- name: checkpoint_events
-- These events of a conversation in order, each with the version of the conversation's last deletion.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest,
       (SELECT coalesce(max(d.version), 0)
          FROM events d
         WHERE d.tenant_id = %(tenant)s
           AND d.conversation_id = %(conversation_id)s
           AND d.event_type = 'conversation.deleted') AS deleted
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.id = ANY (%(ids)s)
 ORDER BY e.version

-- name: checkpoints_of_workflow
-- The events of a workflow's checkpoints since the last deletion of their conversation, in order, without their contents.
SELECT e.id, e.event_type, e.content ->> 'checkpoint_id', e.content ->> 'timestamp'
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version > (SELECT coalesce(max(d.version), 0)
                      FROM events d
                     WHERE d.tenant_id = %(tenant)s
                       AND d.conversation_id = %(conversation_id)s
                       AND d.event_type = 'conversation.deleted')
   AND e.event_type IN ('agent_framework.checkpoint', 'agent_framework.checkpoint_deleted')
   AND e.actor = %(workflow)s  -- which an erased event has not any more
 ORDER BY e.version
