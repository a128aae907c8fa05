-- A line whose parameter is not given is left out.
INSERT INTO batch (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
                   content, metadata)
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version <= %(version)s
   AND e.position <= %(position)s
   AND e.timestamp <= %(time)s
 ORDER BY e.version
