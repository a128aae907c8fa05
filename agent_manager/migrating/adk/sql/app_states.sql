-- What all sessions of an application share.
SELECT app_name, state
  FROM app_states
