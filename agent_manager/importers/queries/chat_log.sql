-- name: first_events
-- The beginnings of those of these conversations that the log holds: the first event, the second event if it is a
-- message, and whether the log has the first message of the line.
SELECT c.conversation_id, e.id, m.id,
       EXISTS (
           SELECT
             FROM events k
            WHERE k.tenant_id = %(tenant)s
              AND k.conversation_id = c.conversation_id
              AND k.id = c.message_id
       )
  FROM unnest(%(conversations)s::uuid[], %(messages)s::uuid[]) AS c (conversation_id, message_id)
  JOIN events e
    ON e.tenant_id = %(tenant)s
   AND e.conversation_id = c.conversation_id
   AND e.version = 1
  LEFT JOIN events m
    ON m.tenant_id = %(tenant)s
   AND m.conversation_id = c.conversation_id
   AND m.version = 2
   AND m.event_type = 'message.added'

-- name: names
-- The events that gave these conversations their present names.
SELECT c.conversation_id, n.id, n.name, n.actor
  FROM unnest(%(conversations)s::uuid[]) AS c (conversation_id)
 CROSS JOIN LATERAL (
           SELECT e.id, coalesce(e.content ->> 'name', '') AS name, e.actor
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = c.conversation_id
              AND e.event_type IN ('conversation.created', 'conversation.renamed')
            ORDER BY e.version DESC
            LIMIT 1
       ) AS n
