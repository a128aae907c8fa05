-- The messages beyond the tables that await an answer, and the answers that there came: a message's id, and whether it is
-- answered.
SELECT e.conversation_id,
       CASE WHEN e.event_type = 'message.added' THEN e.id ELSE (e.content ->> 'message_id')::uuid END,
       e.content ->> 'given_id', occurred_at(e.metadata, e.timestamp), e.position,
       e.event_type = 'message.answered'
  FROM (SELECT e.*
          FROM events e
         WHERE (e.position, 0) > (%(applied)s, 0)
         ORDER BY e.position
         LIMIT %(tail)s) AS e
 WHERE e.tenant_id = %(tenant)s
   AND (e.event_type = 'message.answered'
        OR e.event_type = 'message.added' AND e.content -> 'awaits_answer' = 'true')
