-- Appends in flight, by the gate that they hold; one that stays long keeps readers from what came after it.
SELECT l.pid,
       coalesce(a.usename, '') AS login,
       coalesce(a.application_name, '') AS application,
       CASE WHEN l.pid IS NULL THEN 'prepared transaction' ELSE coalesce(a.state, 'unknown') END AS state,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS seconds
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory'
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND l.classid = 'events_position'::regclass::oid
   AND l.objsubid = 2
   AND l.granted
 ORDER BY seconds DESC
