SELECT m.id, m.conversation_id, m.role, m.content, m.parts, m.created_at, m.metadata, m.tenant_id, m.given_id,
       m.version, m.actor, m.extra
  FROM messages m
 WHERE m.tenant_id = %(tenant)s
   AND m.conversation_id = %(conversation_id)s
   AND m.version > %(after)s
   AND (m.role = %(role)s OR %(role)s::text IS NULL)
 ORDER BY m.version
 LIMIT %(limit)s
