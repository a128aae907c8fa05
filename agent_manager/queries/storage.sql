-- name: conversations
-- Conversations in the table, with their latest versions.
SELECT c.id, c.version, c.created_at
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s

-- name: events_of
-- A limited number of events of conversations after known versions.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM unnest(%(conversations)s::uuid[], %(versions)s::int[]) AS known (conversation_id, version)
 CROSS JOIN LATERAL (
           SELECT e.*
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = known.conversation_id
              AND e.version > known.version
            ORDER BY e.version
            LIMIT %(limit)s
       ) AS e
 ORDER BY e.conversation_id, e.version

-- name: tail_conversations
-- Conversations in the events after the tables, with their latest versions.
SELECT e.conversation_id, max(e.version), min(occurred_at(e.metadata, e.timestamp)),
       bool_or(e.event_type LIKE 'task.%%'),
       bool_or(e.event_type NOT IN ('agent.registered', 'agent.unregistered', 'a2a.home', 'a2a.push_notification',
                                    'conversation.erased', 'event.erased'))
  FROM (SELECT e.*
          FROM events e
         WHERE (e.position, 0) > (%(applied)s, 0)
         ORDER BY e.position
         LIMIT %(tail)s) AS e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id <> administration_id()
 GROUP BY e.conversation_id

-- name: task_conversations
-- Conversations in the tables that have tasks, with their latest versions.
SELECT c.id, c.version
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND EXISTS (SELECT
                 FROM tasks t
                WHERE t.tenant_id = c.tenant_id
                  AND t.conversation_id = c.id)
