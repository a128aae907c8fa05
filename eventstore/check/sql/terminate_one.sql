-- Only sessions of the check's own: they are known by their name.
SELECT a.pid, pg_terminate_backend(a.pid)
  FROM pg_stat_activity a
 WHERE a.datname = current_database()
   AND a.application_name = ANY (%(names)s::text[])
 ORDER BY CASE WHEN %(busy)s THEN a.state = 'idle' END, random()
 LIMIT 1
