-- Conversations that have tasks, with their latest versions. See conversations.sql.
WITH tail AS MATERIALIZED (
    SELECT e.conversation_id, max(e.version) AS version, bool_or(e.event_type LIKE 'task.%%') AS has_tasks
      FROM (SELECT e.*
              FROM events e
             WHERE (e.position, 0) > (applied.position, 0)
             ORDER BY e.position
             LIMIT %(tail)s) AS e
     WHERE e.tenant_id = %(tenant)s
     GROUP BY e.conversation_id
),
with_tasks AS (
    SELECT DISTINCT t.conversation_id
      FROM tasks t
     WHERE t.tenant_id = %(tenant)s
     UNION
    SELECT t.conversation_id
      FROM tail t
     WHERE t.has_tasks
)
SELECT w.conversation_id, greatest(c.version, t.version)
  FROM with_tasks w
  LEFT JOIN conversations c
    ON c.tenant_id = %(tenant)s
   AND c.id = w.conversation_id
  LEFT JOIN tail t
    ON t.conversation_id = w.conversation_id
