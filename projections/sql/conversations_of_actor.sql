-- See conversations.sql. The table conversation_actors holds the times of the conversations, as far as the projection
-- actors has come.
SELECT c.id, c.name, c.is_active, c.created_at, c.updated_at, c.metadata, c.tenant_id, c.given_id, c.is_deleted,
       c.message_count, c.version, c.forked_from, c.member_order, a.updated_at AS place
  FROM conversation_actors a
  JOIN conversations c
    ON c.id = a.conversation_id
   AND coalesce(c.tenant_id = a.tenant_id, false)
 WHERE {within}
   AND coalesce(true
                AND c.is_active = %(active)s
                AND c.is_deleted = %(deleted)s
       , false)
 ORDER BY {order}
 LIMIT (SELECT %(limit)s)
