-- The position up to which the log is final. It is not monotone: a consumer uses the greater of this and its
-- checkpoint. The caller reads events in a later statement.
--
-- partitions: the position up to which the log is final in these partitions of the conversations; null stands for all.
CREATE FUNCTION log_horizon(partitions smallint[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM refuse_old_snapshots();
    IF pg_is_in_recovery() THEN
        -- A standby does not have the locks of the primary. But each checkpoint was a horizon of its partition there,
        -- and all that it covers was committed, and is replayed here, before it.
        RETURN (SELECT coalesce(max(p.position), 0)
                  FROM (SELECT min(c.position) AS position
                          FROM checkpoints c
                         GROUP BY c.projection, c.stage
                        HAVING count(*) = 16) AS p);
    END IF;
    last := last_position();
    RETURN least(last, lowest_append_in_flight(last, partitions));
END
$$;

SELECT eventstore_set_owner('FUNCTION log_horizon');
REVOKE ALL ON FUNCTION log_horizon FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION log_horizon',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');
