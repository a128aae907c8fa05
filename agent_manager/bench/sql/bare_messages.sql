SELECT m.id, m.conversation_id, m.role, m.content, m.parts, m.created_at, m.metadata, m.tenant_id, m.given_id,
       m.version, m.actor, m.extra
  FROM messages m
 WHERE m.tenant_id = %s
   AND m.conversation_id = %s
   AND m.version > %s
 ORDER BY m.version
 LIMIT %s
