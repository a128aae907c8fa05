-- name: openai_sessions
-- The sessions of the OpenAI Agents SDK in the order in which they began.
SELECT session_id, created_at
  FROM agent_sessions
 ORDER BY created_at, session_id

-- name: openai_items
-- The items of a session, in the order in which the SDK reads them.
SELECT id, message_data, created_at
  FROM agent_messages
 WHERE session_id = %(session_id)s
 ORDER BY created_at, id

-- name: time_zone
-- The zone in which the server's current_timestamp became a local time.
SELECT current_setting('TimeZone') AS zone
