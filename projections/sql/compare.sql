-- What is parked is behind by its nature and is left out. Rows without a conversation of their own are compared as if all belonged to one.
WITH live AS (
    SELECT coalesce({tenant}::text, '') AS tenant_id,
           coalesce({conversation}, '00000000-0000-0000-0000-000000000000'::uuid) AS conversation_id, count(*) AS rows, sum({row_hash}) AS hash
      FROM {live} t
     GROUP BY 1, 2
),
other AS (
    SELECT coalesce({tenant}::text, '') AS tenant_id,
           coalesce({conversation}, '00000000-0000-0000-0000-000000000000'::uuid) AS conversation_id, count(*) AS rows, sum({row_hash}) AS hash
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
 LIMIT %(most)s
