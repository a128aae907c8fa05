-- End a wait that begin_wait has begun.
CREATE FUNCTION end_wait() RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT pg_advisory_unlock_shared('waiter_flag'::regclass::oid::bigint::bit(32)::integer, 0);
END;

SELECT eventstore_set_owner('FUNCTION end_wait');
REVOKE ALL ON FUNCTION end_wait FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION end_wait', 'eventstore_app', 'eventstore_auditor', 'eventstore_projector');
