-- The checks that a store makes when it opens: the sequence of positions has its original options and is at or above
-- the last event. Projections only reach positions of events, so a checkpoint above the last event means that events
-- are missing, as after restoring a dump that row-level security has filtered.
CREATE FUNCTION log_integrity(
    OUT sequence_is_unaltered boolean,
    OUT sequence_is_ahead     boolean,
    OUT last_event            bigint,
    OUT last_checkpoint       bigint
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT s.seqcache = 1 AND s.seqincrement = 1 AND NOT s.seqcycle, last_position() >= e.position,
           e.position, c.position
      FROM pg_sequence s
     CROSS JOIN (SELECT coalesce(max(position), 0) AS position FROM events) AS e
     CROSS JOIN (SELECT coalesce(max(position), 0) AS position FROM checkpoints) AS c
     WHERE s.seqrelid = 'events_position'::regclass;
END;

SELECT eventstore_set_owner('FUNCTION log_integrity');
REVOKE ALL ON FUNCTION log_integrity FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION log_integrity', 'eventstore_app');
