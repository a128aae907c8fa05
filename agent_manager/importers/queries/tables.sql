-- name: columns_postgresql
-- The columns of tables in the connection's search path.
SELECT c.relname AS table_name, a.attname AS column_name
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relname IN ({tables})
   AND c.relkind IN ('r', 'p', 'v')
   AND pg_table_is_visible(c.oid)
   AND a.attnum > 0
   AND NOT a.attisdropped

-- name: columns_sqlite
-- The columns of tables.
SELECT t.name AS table_name, c.name AS column_name
  FROM sqlite_master t
  JOIN pragma_table_info(t.name) c
 WHERE t.type IN ('table', 'view')
   AND t.name IN ({tables})
