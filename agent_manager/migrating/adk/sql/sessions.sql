-- The sessions of google-adk's DatabaseSessionService, in the order in which they began.
SELECT app_name, user_id, id, state, create_time, update_time
  FROM sessions
 ORDER BY create_time, app_name, user_id, id
