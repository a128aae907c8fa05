-- The messages that await an answer: as the table has them, and what the log holds beyond ("applied" is how far the table
-- is). Nobody waits for the workers.
WITH tail AS MATERIALIZED (
    SELECT e.position, e.timestamp, e.conversation_id, e.id, e.event_type, e.content, e.metadata
      FROM (SELECT e.*
              FROM events e
             WHERE (e.position, 0) > (applied.position, 0)
             ORDER BY e.position
             LIMIT %(tail)s) AS e
     WHERE e.tenant_id = %(tenant)s
       AND e.event_type IN ('message.added', 'message.answered')
),
asked AS (
    SELECT p.conversation_id, p.id, p.given_id, p.created_at, p.position
      FROM pending_messages p
     WHERE p.tenant_id = %(tenant)s
     UNION ALL
    SELECT t.conversation_id, t.id, t.content ->> 'given_id', occurred_at(t.metadata, t.timestamp), t.position
      FROM tail t
     WHERE t.event_type = 'message.added'
       AND t.content -> 'awaits_answer' = 'true'
)
SELECT a.conversation_id, a.id, a.given_id, a.created_at, a.position
  FROM asked a
 WHERE NOT EXISTS (
           SELECT
             FROM tail t
            WHERE t.event_type = 'message.answered'
              AND t.conversation_id = a.conversation_id
              AND t.content ->> 'message_id' = a.id::text
       )
 ORDER BY a.position
