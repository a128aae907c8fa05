-- The positions of the first event at or after a time, and of the last one before another time; null if there is none.
CREATE FUNCTION positions_in_time(since timestamptz, until timestamptz, OUT low bigint, OUT high bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    low := (SELECT e.position FROM events e WHERE e.timestamp >= since ORDER BY e.timestamp ASC LIMIT 1);
    high := (SELECT e.position FROM events e WHERE e.timestamp < until ORDER BY e.timestamp DESC LIMIT 1);
END
$$;

SELECT eventstore_set_owner('FUNCTION positions_in_time');
REVOKE ALL ON FUNCTION positions_in_time FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION positions_in_time',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');
