-- A statement that reads may take so long, unless the login's or the server's own settings allow it less.
SELECT set_config('statement_timeout', %(milliseconds)s::text, false)
  FROM pg_settings s
 WHERE s.name = 'statement_timeout'
   AND s.setting::bigint NOT BETWEEN 1 AND %(milliseconds)s
