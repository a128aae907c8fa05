-- By which columns the rows of a table belong to a tenant and a conversation; null where they do not.
SELECT (SELECT a.attname
          FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped),
       (SELECT a.attname
          FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attname IN ('conversation_id', 'id')
           AND a.atttypid = 'uuid'::regtype AND NOT a.attisdropped
         ORDER BY a.attname
         LIMIT 1)
  FROM pg_class c
 WHERE c.relname = %(table)s
   AND c.relnamespace = stage_schema('live')::regnamespace
