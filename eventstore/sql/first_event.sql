-- The position of the first event at or above another; the highest there can be if there is none.
SELECT coalesce(min(e.position), 9223372036854775807)
  FROM events e
 WHERE e.position >= %(first)s
