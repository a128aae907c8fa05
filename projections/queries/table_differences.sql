-- name: stage_positions
SELECT l.position, n.position
  FROM checkpoints l
  JOIN checkpoints n
    ON n.projection = l.projection
   AND n.partition = l.partition
   AND n.stage = 'next'
 WHERE l.projection = %(projection)s
   AND l.stage = 'live'

-- name: table_keys
-- The columns by which the rows of a table belong to a tenant and to a conversation; null if there is no such column.
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

-- name: compare
-- Parked conversations are behind and are left out. Rows without a conversation are compared as if all belonged to one.
WITH live AS (
    SELECT coalesce({tenant}::text, '') AS tenant_id,
           coalesce({conversation}, '00000000-0000-0000-0000-000000000000'::uuid) AS conversation_id,
           count(*) AS rows,
           sum({row_hash}) AS hash
      FROM {live} t
     GROUP BY 1, 2
),
other AS (
    SELECT coalesce({tenant}::text, '') AS tenant_id,
           coalesce({conversation}, '00000000-0000-0000-0000-000000000000'::uuid) AS conversation_id,
           count(*) AS rows,
           sum({row_hash}) AS hash
      FROM {other} t
     GROUP BY 1, 2
)
SELECT nullif(coalesce(l.tenant_id, o.tenant_id), ''),
       nullif(coalesce(l.conversation_id, o.conversation_id), '00000000-0000-0000-0000-000000000000'),
       coalesce(l.rows, 0), coalesce(o.rows, 0)
  FROM live l
  FULL JOIN other o
    ON o.tenant_id = l.tenant_id
   AND o.conversation_id = l.conversation_id
 WHERE (l.rows, l.hash) IS DISTINCT FROM (o.rows, o.hash)
   AND NOT EXISTS (
           SELECT
             FROM parked p
            WHERE p.projection = %(projection)s
              AND p.stage = 'live'
              AND p.tenant_id = l.tenant_id
              AND p.conversation_id = l.conversation_id
       )
 ORDER BY 1, 2
 LIMIT %(limit)s
