-- name: obstacles
SELECT o.obstacle FROM swap_obstacles(%(tables)s) AS o

-- name: lock_rebuild
SELECT pg_try_advisory_lock(rebuild_key(%(projection)s))

-- name: create_next
WITH created AS MATERIALIZED (
    SELECT create_staging_tables(%(tables)s)
),
stored AS (
    INSERT INTO projection_definitions (projection, stage, definition_hash, text, tables)
    SELECT %(projection)s, 'next', %(definition_hash)s, %(text)s, %(tables)s FROM created
)
INSERT INTO checkpoints (projection, stage, partition)
SELECT %(projection)s, 'next', s.partition
  FROM generate_series(0, 15) AS s (partition)

-- name: missing
SELECT m.what, m.statement, m.is_key FROM missing_in_staging(%(tables)s) AS m

-- name: drop_stage
SELECT drop_stage(%(projection)s, %(stage)s)

-- name: stages
SELECT t.stage, t.definition_hash FROM projection_definitions t WHERE t.projection = %(projection)s

-- name: lock_live
SELECT c.partition, c.position
  FROM checkpoints c
 WHERE c.projection = %(projection)s
   AND c.stage = 'live'
 ORDER BY c.partition
   FOR UPDATE

-- name: swap
SELECT swap_tables(%(projection)s, %(tables)s, %(stage)s)

-- name: behind
SELECT l.partition
  FROM checkpoints l
  JOIN checkpoints n
    ON n.projection = l.projection
   AND n.partition = l.partition
   AND n.stage = %(stage)s
 WHERE l.projection = %(projection)s
   AND l.stage = 'live'
   AND n.position < l.position

-- name: mark_transactions
-- The present moment as a transaction id, and the sessions that are in a transaction.
SELECT pg_current_xact_id()::xid::text,
       (SELECT coalesce(array_agg(l.pid || ' ' || l.virtualtransaction), '{}')
          FROM pg_locks l
         WHERE l.locktype = 'virtualxid'
           AND l.pid <> pg_backend_pid())

-- name: older_transactions
-- The sessions that were in a transaction at the marked moment, still are in it, and may have a snapshot from before it.
-- That includes sessions whose state this login may not see.
SELECT a.pid
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'virtualxid'
   AND l.pid || ' ' || l.virtualtransaction = ANY (%(running)s)
   AND a.datname = current_database()
   AND (a.state IS NULL OR age(a.backend_xmin) >= age(%(mark)s::xid))
 ORDER BY a.xact_start

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
