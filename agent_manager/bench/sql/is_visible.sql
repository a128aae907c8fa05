SELECT 1
  FROM messages m
 WHERE m.tenant_id = %(tenant)s
   AND m.conversation_id = %(conversation_id)s
   AND m.id = %(id)s
