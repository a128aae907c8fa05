-- Conversations in the order in which they began, with their latest versions: as the table has them, and what the log
-- holds beyond ("applied" is how far the table is). Nobody waits for the workers.
WITH tail AS MATERIALIZED (
    SELECT e.conversation_id, max(e.version) AS version, min(occurred_at(e.metadata, e.timestamp)) AS created_at
      FROM (SELECT e.*
              FROM events e
             WHERE (e.position, 0) > (applied.position, 0)
             ORDER BY e.position
             LIMIT %(tail)s) AS e
     WHERE e.tenant_id = %(tenant)s
       AND e.event_type NOT IN ('agent.registered', 'agent.unregistered')
     GROUP BY e.conversation_id
),
found AS (
    SELECT c.id, c.version, c.created_at
      FROM conversations c
     WHERE c.tenant_id = %(tenant)s
     UNION ALL
    SELECT t.conversation_id, t.version, t.created_at
      FROM tail t
)
SELECT f.id, max(f.version)
  FROM found f
 GROUP BY f.id
 ORDER BY min(f.created_at), f.id
