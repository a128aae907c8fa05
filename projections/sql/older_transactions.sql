-- Those that were in a transaction at the marked moment, still are, and may have a snapshot from before it. Whose state
-- this login may not see may have one.
SELECT a.pid
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'virtualxid'
   AND l.pid || ' ' || l.virtualtransaction = ANY (%(running)s)
   AND a.datname = current_database()
   AND (a.state IS NULL OR age(a.backend_xmin) >= age(%(mark)s::xid))
 ORDER BY a.xact_start
