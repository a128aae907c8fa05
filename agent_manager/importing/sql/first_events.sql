-- The first event of each of these conversations that the log holds.
SELECT e.conversation_id, e.id
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = ANY (%(conversations)s)
   AND e.version = 1
