-- name: tasks_of_calls
-- Of each call of a tool the latest task that its conversation does not hide, and the metadata; null if the conversation
-- was deleted since. Each is looked for from the end of the conversation on.
SELECT c.id, latest.task_id, latest.metadata
  FROM unnest(%(calls)s::text[]) AS c (id)
 CROSS JOIN LATERAL (
           SELECT e.content ->> 'task_id' AS task_id, e.content -> 'metadata' AS metadata
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = %(conversation_id)s
              AND (e.event_type = 'conversation.deleted' AND NOT EXISTS (
                          SELECT
                            FROM events r
                           WHERE r.tenant_id = e.tenant_id
                             AND r.conversation_id = e.conversation_id
                             AND r.event_type = 'conversation.reactivated'
                             AND r.version > e.version
                      )
                   OR e.event_type = 'task.created' AND e.content ->> 'given_id' = c.id
                      AND NOT EXISTS (
                              SELECT
                                FROM hiding_events(e.tenant_id, e.conversation_id, e.version) AS h
                               WHERE h.event_type = 'conversation.rewound'
                          ))
            ORDER BY e.version DESC
            LIMIT 1
       ) AS latest
