-- The position of the last event at or below a position; 0 if there is none.
CREATE FUNCTION last_event_at_or_before(highest bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN coalesce((SELECT max(e.position) FROM events e WHERE e.position <= highest), 0);
END
$$;

SELECT eventstore_set_owner('FUNCTION last_event_at_or_before');
REVOKE ALL ON FUNCTION last_event_at_or_before FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION last_event_at_or_before',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');
