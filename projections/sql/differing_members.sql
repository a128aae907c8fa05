SELECT m.tenant_id, m.conversation_id, m.user_id, m.expected, m.found
  FROM differing_members() AS m
 ORDER BY m.tenant_id, m.conversation_id, m.user_id
 LIMIT 100
