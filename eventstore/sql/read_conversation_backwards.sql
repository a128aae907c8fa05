-- A line whose parameter is not given is left out.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version BETWEEN %(first)s AND %(last)s
   AND e.event_type = ANY (%(types)s::text[])
   AND e.actor = %(actor)s
   AND e.timestamp >= %(since)s
   AND e.timestamp < %(until)s
 ORDER BY e.version DESC
 LIMIT %(limit)s
