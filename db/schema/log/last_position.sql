-- The highest position that the sequence has assigned; 0 if none.
CREATE FUNCTION last_position() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT s.last_value - CASE WHEN s.is_called THEN 0 ELSE 1 END FROM events_position s;
END;

SELECT eventstore_set_owner('FUNCTION last_position');
REVOKE ALL ON FUNCTION last_position FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION last_position',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector', 'eventstore_reader',
                        'eventstore_search');
