-- The transactions that hold the locks of conversations, as far as the login may see them.
SELECT c.ordinality::integer - 1,
       l.pid,
       coalesce(a.application_name, p.gid, ''),
       a.state,
       coalesce(a.xact_start, p.prepared)
  FROM unnest(%(tenants)s::text[], %(conversations)s::uuid[])
           WITH ORDINALITY AS c (tenant_id, conversation_id, ordinality)
  JOIN pg_locks l
    ON l.locktype = 'advisory'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.objsubid = 1
   AND l.granted
   AND (l.classid::bigint << 32 | l.objid::bigint) = conversation_key(c.tenant_id, c.conversation_id)
  LEFT JOIN pg_stat_activity a
    ON a.pid = l.pid
  LEFT JOIN pg_prepared_xacts p
    ON l.pid IS NULL
   AND p.transaction::text = split_part(l.virtualtransaction, '/', 2)
