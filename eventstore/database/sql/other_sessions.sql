-- Ends a login's sessions in this database, and waits until each has ended. The calling program's own are named.
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid, 10000))
  FROM pg_stat_activity a
 WHERE a.datname = current_database()
   AND a.usename = %(login)s
   AND a.backend_type = 'client backend'
   AND a.pid <> ALL (%(own)s::integer[])
