-- name: app_states
-- The state that all sessions of an application share.
SELECT app_name, state
  FROM app_states

-- name: columns_postgresql
-- The columns of google-adk's tables in the connection's search path.
SELECT c.relname AS table_name, a.attname AS column_name
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relname IN ('sessions', 'events', 'app_states', 'user_states')
   AND c.relkind IN ('r', 'p', 'v')
   AND pg_table_is_visible(c.oid)
   AND a.attnum > 0
   AND NOT a.attisdropped

-- name: columns_sqlite
-- The columns of google-adk's tables.
SELECT t.name AS table_name, c.name AS column_name
  FROM sqlite_master t
  JOIN pragma_table_info(t.name) c
 WHERE t.type IN ('table', 'view')
   AND t.name IN ('sessions', 'events', 'app_states', 'user_states')

-- name: events
-- The events of a session. The columns depend on the version of google-adk that created the table.
SELECT {columns}
  FROM events
 WHERE app_name = %(app_name)s
   AND user_id = %(user_id)s
   AND session_id = %(session_id)s
 ORDER BY timestamp, {tie}

-- name: sessions
-- The sessions in the order in which they began.
SELECT app_name, user_id, id, state, create_time, update_time
  FROM sessions
 ORDER BY create_time, app_name, user_id, id

-- name: user_states
-- The state that all sessions of a user share.
SELECT app_name, user_id, state
  FROM user_states
