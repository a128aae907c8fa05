-- The conversations that a tenant wrote to behind a position and up to another, and the highest of these positions in each.
SELECT e.conversation_id, max(e.position)
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND (e.position, 0) > (%(after)s, 0)
   AND (e.position, 0) <= (%(until)s, 0)
 GROUP BY e.conversation_id
