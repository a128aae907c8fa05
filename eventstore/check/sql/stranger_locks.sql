-- One-integer keys with the same 64 bits as those of the store's own locks of two integers; made of the OIDs of the
-- check's own sequences, so that nobody else waits for them.
SELECT pg_try_advisory_xact_lock_shared((c.oid::bigint << 32) | n)
  FROM pg_class c, unnest(%(numbers)s::bigint[]) AS n
 WHERE c.relnamespace = %(schema)s::regnamespace
   AND c.relkind = 'S'
