-- Who follows which shares.
SELECT l.pid,
       coalesce(a.application_name, '') AS application,
       coalesce(a.client_addr::text, 'local') AS client,
       coalesce(array_agg(l.objid::integer ORDER BY l.objid) FILTER (WHERE l.objid < 16), '{}') AS shares
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.classid = 'checkpoints'::regclass::oid
   AND l.objid <= 16
   AND l.objsubid = 2
   AND l.granted
 GROUP BY l.pid, a.application_name, a.client_addr
 ORDER BY l.pid
