-- The columns of google-adk's tables that the connection sees.
SELECT c.relname AS table_name, a.attname AS column_name
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relname IN ('sessions', 'events', 'app_states', 'user_states')
   AND c.relkind IN ('r', 'p', 'v')
   AND pg_table_is_visible(c.oid)
   AND a.attnum > 0
   AND NOT a.attisdropped
