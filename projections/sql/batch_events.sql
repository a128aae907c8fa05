SELECT b.position, b.timestamp, b.version, b.schema_version, b.conversation_id, b.id, b.tenant_id, b.event_type,
       b.actor, b.content, b.metadata, b.salt, b.digest
  FROM batch b
 ORDER BY b.position
