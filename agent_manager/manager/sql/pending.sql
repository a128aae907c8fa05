-- The messages that await an answer, as far as the table has them.
SELECT p.conversation_id, p.id, p.given_id, p.created_at, p.position
  FROM pending_messages p
 WHERE p.tenant_id = %(tenant)s
