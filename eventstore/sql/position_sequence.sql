SELECT s.seqcache = 1 AND s.seqincrement = 1 AND NOT s.seqcycle,
       last_position() >= coalesce((SELECT max(e.position) FROM events e), 0)
  FROM pg_sequence s
 WHERE s.seqrelid = to_regclass('events_position')
