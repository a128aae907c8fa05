-- The events of a session. Which columns there are depends on the version of google-adk that made the table.
SELECT {columns}
  FROM events
 WHERE app_name = %(app_name)s
   AND user_id = %(user_id)s
   AND session_id = %(session_id)s
 ORDER BY timestamp, {tie}
