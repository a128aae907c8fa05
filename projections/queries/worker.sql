-- name: join_workers
-- Take the shared lock by which workers are counted; the session keeps it.
SELECT pg_advisory_lock_shared('checkpoints'::regclass::oid::bigint::bit(32)::integer, 16)

-- name: count_workers
SELECT count(*)
  FROM pg_locks l
 WHERE l.locktype = 'advisory'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.classid = 'checkpoints'::regclass::oid
   AND l.objid = 16
   AND l.objsubid = 2
   AND l.granted

-- name: take_partitions
-- Take the locks of free partitions, at most as many as wanted.
SELECT s.partition::smallint
  FROM (SELECT g.partition
          FROM generate_series(0, 15) AS g (partition)
         WHERE g.partition <> ALL (%(held)s)
        OFFSET 0) AS s
 WHERE pg_try_advisory_lock('checkpoints'::regclass::oid::bigint::bit(32)::integer, s.partition)
 LIMIT %(wanted)s

-- name: release_partitions
SELECT pg_advisory_unlock('checkpoints'::regclass::oid::bigint::bit(32)::integer, s.partition)
  FROM unnest(%(partitions)s::integer[]) AS s (partition)

-- name: name_worker
SELECT set_config('application_name', left(%(name)s, 63), false)
