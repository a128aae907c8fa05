-- A login's sessions in this database whose transaction began before a moment.
SELECT a.pid
  FROM pg_stat_activity a
 WHERE a.datname = current_database()
   AND a.usename = %(login)s
   AND a.backend_type = 'client backend'
   AND a.xact_start < %(now)s
   AND a.pid <> ALL (%(own)s::integer[])
