-- The position up to which the log is final. It is not monotone: a consumer uses the greater of this and its
-- checkpoint. The caller reads events in a later statement.
CREATE FUNCTION log_horizon() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM refuse_old_snapshots();
    IF pg_is_in_recovery() THEN
        -- A standby does not have the locks of the primary. But each checkpoint was a horizon there, and all that it
        -- covers was committed, and is replayed here, before it.
        RETURN (SELECT coalesce(max(c.position), 0) FROM checkpoints c);
    END IF;
    last := last_position();
    RETURN least(last, lowest_append_in_flight(last));
END
$$;

SELECT eventstore_own('FUNCTION log_horizon');
REVOKE ALL ON FUNCTION log_horizon FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION log_horizon',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');
