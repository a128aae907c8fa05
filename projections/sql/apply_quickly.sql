SELECT a.applied_position, a.applied_events
  FROM pg_temp.apply_quickly(%(projections)s, %(sources)s, %(shares)s, %(size)s) AS a
