-- name: app_states
-- The state that all sessions of an application share.
SELECT app_name, state
  FROM app_states

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
