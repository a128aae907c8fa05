-- The position of the first event at or above a position; the highest possible one if there is none.
CREATE FUNCTION first_event_at_or_after(lowest bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN coalesce((SELECT min(e.position) FROM events e WHERE e.position >= lowest), 9223372036854775807);
END
$$;

SELECT eventstore_set_owner('FUNCTION first_event_at_or_after');
REVOKE ALL ON FUNCTION first_event_at_or_after FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION first_event_at_or_after',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');
