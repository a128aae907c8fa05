-- The positions of the next events after a position, in order.
CREATE FUNCTION positions_after(seen bigint, most integer) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT ROWS 100 AS $$
BEGIN
    RETURN QUERY
        SELECT e.position FROM events e WHERE e.position > seen ORDER BY e.position LIMIT most;
END
$$;

SELECT eventstore_set_owner('FUNCTION positions_after');
REVOKE ALL ON FUNCTION positions_after FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION positions_after',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');
