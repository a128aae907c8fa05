-- name: append
SELECT a."position", a.version
  FROM set_config('eventstore.tenant', %(tenant)s, true) AS given (tenant),
       append_events(
           ARRAY[given.tenant], ARRAY[%(conversation)s::uuid], ARRAY[%(expected)s::integer],
           array_fill(1, ARRAY[%(count)s::integer]), %(ids)s::uuid[],
           array_fill(%(event_type)s::text, ARRAY[%(count)s]), array_fill(1::smallint, ARRAY[%(count)s]),
           array_fill(''::text, ARRAY[%(count)s]), %(contents)s::jsonb[],
           array_fill('{}'::jsonb, ARRAY[%(count)s])
       ) AS a
 ORDER BY a.ordinal

-- name: batch
SELECT position, tenant_id, conversation_id, version, id, content
  FROM events
 WHERE position > %(after)s
   AND position <= %(last)s
 ORDER BY position
 LIMIT %(limit)s

-- name: create
-- The tables of the checker itself: checkpoints of readers, and a table that foreign transactions write to.
CREATE TABLE check_checkpoints (
    reader   text   PRIMARY KEY,
    position bigint NOT NULL
);
CREATE TABLE check_foreign (
    note text NOT NULL
);

-- name: load_checkpoint
SELECT position
  FROM check_checkpoints
 WHERE reader = %(reader)s

-- name: log
SELECT position, tenant_id, conversation_id, version, id, content
  FROM events
 ORDER BY position

-- name: prepared
-- Prepared transactions of writers that were killed or cut off between the phases.
SELECT p.gid, quote_ident(p.owner::text)
  FROM pg_prepared_xacts p
 WHERE p.database = current_database()
   AND starts_with(p.gid, %(prefix)s)
   AND p.prepared < clock_timestamp() - make_interval(secs => %(seconds)s)

-- name: save_checkpoint
INSERT INTO check_checkpoints AS c (reader, position)
VALUES (%(reader)s, %(position)s)
    ON CONFLICT (reader) DO UPDATE SET position = excluded.position

-- name: schemas
SELECT n.nspname
  FROM pg_namespace n
 WHERE n.nspname = %(name)s
    OR starts_with(n.nspname, %(name)s || '_')

-- name: foreign_locks
-- One-integer keys with the same 64 bits as those of the store's own locks of two integers; made of the OIDs of the
-- check's own sequences, so that no other session waits for them.
SELECT pg_try_advisory_xact_lock_shared((c.oid::bigint << 32) | n)
  FROM pg_class c, unnest(%(numbers)s::bigint[]) AS n
 WHERE c.relnamespace = %(schema)s::regnamespace
   AND c.relkind = 'S'

-- name: terminate_all
SELECT pg_terminate_backend(a.pid)
  FROM pg_stat_activity a
 WHERE a.datname = current_database()
   AND a.application_name = %(name)s

-- name: terminate_one
-- Only sessions of the check's own, which their application name identifies.
SELECT a.pid, pg_terminate_backend(a.pid)
  FROM pg_stat_activity a
 WHERE a.datname = current_database()
   AND a.application_name = ANY (%(names)s::text[])
 ORDER BY CASE WHEN %(busy)s THEN a.state = 'idle' END, random()
 LIMIT 1
