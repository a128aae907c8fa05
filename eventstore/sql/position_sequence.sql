SELECT s.seqcache = 1 AND s.seqincrement = 1 AND NOT s.seqcycle,
       last_position() >= event_not_above(9223372036854775807)
  FROM pg_sequence s
 WHERE s.seqrelid = to_regclass('events_position')
