-- The positions of the first event in time at or after a moment, and of the last before another; null where there is none.
CREATE FUNCTION positions_in_time(since timestamptz, until timestamptz, OUT low bigint, OUT high bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    low := (SELECT e.position FROM events e WHERE e.timestamp >= since ORDER BY e.timestamp ASC LIMIT 1);
    high := (SELECT e.position FROM events e WHERE e.timestamp < until ORDER BY e.timestamp DESC LIMIT 1);
END
$$;

SELECT eventstore_own('FUNCTION positions_in_time');
REVOKE ALL ON FUNCTION positions_in_time FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION positions_in_time', 'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');
