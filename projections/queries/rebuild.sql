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
-- That includes sessions whose state this login may not see. Those of autovacuum, which reads for nobody, have no user.
SELECT a.pid
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'virtualxid'
   AND l.pid || ' ' || l.virtualtransaction = ANY (%(running)s)
   AND a.datname = current_database()
   AND a.usesysid IS NOT NULL
   AND (a.state IS NULL OR age(a.backend_xmin) >= age(%(mark)s::xid))
 ORDER BY a.xact_start

-- name: outdated
-- The projections whose live tables are made by another text. If the previous tables are made by this text, a rebuild
-- was undone, and is not repeated.
SELECT g.name
  FROM unnest(%(projections)s::text[], %(definition_hashes)s::text[]) AS g (name, definition_hash)
  JOIN projection_definitions t
    ON t.projection = g.name
   AND t.stage = 'live'
   AND t.definition_hash <> g.definition_hash
 WHERE NOT EXISTS (
           SELECT
             FROM projection_definitions p
            WHERE p.projection = g.name
              AND p.stage = 'previous'
              AND p.definition_hash = g.definition_hash
       )
