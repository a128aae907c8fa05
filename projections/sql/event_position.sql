-- The position of one event of a conversation.
SELECT e.position
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version = %(version)s
