SELECT position, tenant_id, conversation_id, version, id, content
  FROM events
 ORDER BY position
