-- The first conversation that there is of those that a text may name.
SELECT c.id, c.name, c.is_active, c.created_at, c.updated_at, c.metadata, c.tenant_id, c.given_id, c.is_deleted,
       c.message_count, c.version, c.forked_from, c.member_order
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND c.id = ANY (%(ids)s::uuid[])
 ORDER BY array_position(%(ids)s::uuid[], c.id)
 LIMIT 1
