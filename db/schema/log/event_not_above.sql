-- The position of the last event at or below a position; 0 if there is none.
CREATE FUNCTION event_not_above(highest bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN coalesce((SELECT max(e.position) FROM events e WHERE e.position <= highest), 0);
END
$$;

SELECT eventstore_own('FUNCTION event_not_above');
REVOKE ALL ON FUNCTION event_not_above FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION event_not_above',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader');
