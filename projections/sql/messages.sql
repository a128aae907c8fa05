-- Of a conversation, or of all. See conversations.sql.
SELECT m.id, m.conversation_id, m.role, m.content, m.parts, m.created_at, m.metadata, m.tenant_id, m.given_id,
       m.version, m.actor, m.extra, m.member_order
  FROM messages m
 WHERE {within}
   AND coalesce(true
                AND m.tenant_id = %(tenant)s
                AND m.version > %(after_version)s
                AND m.role = %(role)s
                AND m.actor = %(actor)s
                AND m.created_at >= %(since)s
                AND m.created_at < %(until)s
                AND coalesce((SELECT c.is_deleted FROM conversations c WHERE c.tenant_id = m.tenant_id AND c.id = m.conversation_id), false) = %(deleted)s
       , false)
 ORDER BY {order}
 LIMIT (SELECT %(limit)s)
