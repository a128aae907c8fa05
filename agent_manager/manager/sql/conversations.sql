-- Conversations with their latest versions, as far as the table has them.
SELECT c.id, c.version, c.created_at
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
