SELECT c.id, c.name, c.is_active, c.created_at, c.updated_at, c.metadata, c.tenant_id, c.given_id, c.is_deleted,
       c.message_count, c.version, c.forked_from
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND (c.id = %(id)s OR %(id)s::uuid IS NULL)
   AND (c.is_active = %(active)s OR %(active)s::boolean IS NULL)
   AND (%(deleted)s::boolean OR NOT c.is_deleted)
 ORDER BY c.updated_at DESC, c.id
 LIMIT %(limit)s
