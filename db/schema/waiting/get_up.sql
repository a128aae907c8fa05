-- End a wait that lie_down has begun.
CREATE FUNCTION get_up() RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT pg_advisory_unlock_shared('consumer_slots'::regclass::oid::bigint::bit(32)::integer, 0);
END;

SELECT eventstore_own('FUNCTION get_up');
REVOKE ALL ON FUNCTION get_up FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION get_up', 'eventstore_app', 'eventstore_auditor', 'eventstore_projector');
