-- The position of the last event at or below the horizon; 0 in an empty log.
SELECT coalesce(max(e.position), 0)
  FROM events e
 WHERE e.position <= %(horizon)s
