-- The columns of google-adk's tables.
SELECT t.name AS table_name, c.name AS column_name
  FROM sqlite_master t
  JOIN pragma_table_info(t.name) c
 WHERE t.type IN ('table', 'view')
   AND t.name IN ('sessions', 'events', 'app_states', 'user_states')
