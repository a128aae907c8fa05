-- Conversations with their latest versions, from what the log holds beyond the tables.
SELECT e.conversation_id, max(e.version), min(occurred_at(e.metadata, e.timestamp)),
       bool_or(e.event_type LIKE 'task.%%'),
       bool_or(e.event_type NOT IN ('agent.registered', 'agent.unregistered'))
  FROM (SELECT e.*
          FROM events e
         WHERE (e.position, 0) > (%(applied)s, 0)
         ORDER BY e.position
         LIMIT %(tail)s) AS e
 WHERE e.tenant_id = %(tenant)s
 GROUP BY e.conversation_id
