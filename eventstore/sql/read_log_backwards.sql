SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.position BETWEEN %(first)s AND %(last)s
   AND (%(tenant)s::text IS NULL OR e.tenant_id = %(tenant)s)
   AND (%(types)s::text[] IS NULL OR e.event_type = ANY (%(types)s))
   AND (%(actor)s::text IS NULL OR e.actor = %(actor)s)
   AND (%(since)s::timestamptz IS NULL OR e.timestamp >= %(since)s)
   AND (%(until)s::timestamptz IS NULL OR e.timestamp < %(until)s)
 ORDER BY e.position DESC
 LIMIT %(limit)s
