-- name: lease_answers
-- Take the leases of messages. Returns the holder and expiry of each, and the version of its conversation.
SELECT l.conversation_id, l.message_id, l.held_by, l.expires_at, l.version
  FROM lease_answers(%(tenant)s, %(conversations)s, %(messages)s, %(holder)s, %(seconds)s) AS l

-- name: release_answers
-- End the leases of messages.
SELECT release_answers(%(tenant)s, %(conversations)s, %(messages)s, %(holder)s)

-- name: renew_answer_leases
-- Renew the leases of a holder. Returns the messages whose lease it still has.
SELECT r.conversation_id, r.message_id
  FROM renew_answer_leases(%(tenant)s, %(conversations)s, %(messages)s, %(holder)s, %(seconds)s) AS r

-- name: pending
-- Messages in the table that await an answer.
SELECT p.conversation_id, p.id
  FROM pending_messages p
 WHERE p.tenant_id = %(tenant)s

-- name: tail_pending
-- Messages after the tables that await an answer, and the messages that are answered there: the last column tells which.
SELECT e.conversation_id,
       CASE WHEN e.event_type = 'message.added' THEN e.id ELSE (e.content ->> 'message_id')::uuid END,
       e.event_type = 'message.answered'
  FROM (SELECT e.*
          FROM events e
         WHERE (e.position, 0) > (%(applied)s, 0)
         ORDER BY e.position
         LIMIT %(tail)s) AS e
 WHERE e.tenant_id = %(tenant)s
   AND (e.event_type = 'message.answered'
        OR e.event_type = 'message.added' AND e.content -> 'awaits_answer' = 'true')
