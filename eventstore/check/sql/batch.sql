SELECT position, tenant_id, conversation_id, version, id, content
  FROM events
 WHERE position > %(after)s
   AND position <= %(last)s
 ORDER BY position
 LIMIT %(limit)s
