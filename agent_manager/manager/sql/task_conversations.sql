-- Conversations that have tasks, with their latest versions, as far as the tables have them.
SELECT c.id, c.version
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND EXISTS (SELECT
                 FROM tasks t
                WHERE t.tenant_id = c.tenant_id
                  AND t.conversation_id = c.id)
