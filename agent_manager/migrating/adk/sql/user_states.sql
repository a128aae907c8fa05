-- What all sessions of a user share.
SELECT app_name, user_id, state
  FROM user_states
