-- The checks that a store makes when it opens: the sequence of positions has its original options (is_sound) and is at
-- or above the last event (is_ahead). Projections only reach positions of events, so a checkpoint above the last event
-- means that events are missing, as after restoring a dump that row-level security has filtered.
CREATE FUNCTION positions_are_sound(
    OUT is_sound        boolean,
    OUT is_ahead        boolean,
    OUT last_event      bigint,
    OUT last_checkpoint bigint
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

SELECT eventstore_own('FUNCTION positions_are_sound');
REVOKE ALL ON FUNCTION positions_are_sound FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION positions_are_sound', 'eventstore_app');
