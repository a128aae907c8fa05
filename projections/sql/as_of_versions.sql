-- The latest versions of the conversations that a text may name.
SELECT e.conversation_id, max(e.version)
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = ANY (%(ids)s::uuid[])
 GROUP BY e.conversation_id
