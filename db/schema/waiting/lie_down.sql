-- Lies down to sleep: true if from now on every append will notify, false if there is something to do first.
CREATE FUNCTION lie_down(seen bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
-- No statistics, however old, may lead to a look through the whole log for events that are not there. Before PostgreSQL
-- 18 that makes reading a sequence look so dear that it would be compiled first.
SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    class integer := 'consumer_slots'::regclass::oid::bigint::bit(32)::integer;
BEGIN
    PERFORM refuse_old_snapshots();
    IF NOT pg_try_advisory_lock_shared(class, 0) THEN
        RETURN false;
    END IF;
    IF (SELECT s.last_value FROM consumer_slots s) = 0 THEN
        -- A crash that forgets the flag ends the sleepers too, so nobody waits for it to be durable.
        PERFORM set_config('synchronous_commit', 'off', true),
                setval('consumer_slots', 1);
    END IF;
    -- Two statements, for the second needs a snapshot taken after the first found no append in flight.
    IF lowest_gate(lie_down.seen) IS NULL THEN
        IF NOT EXISTS (SELECT FROM events e WHERE e.position > lie_down.seen) THEN
            RETURN true;
        END IF;
    END IF;
    PERFORM pg_advisory_unlock_shared(class, 0);
    RETURN false;
END
$$;

SELECT eventstore_own('FUNCTION lie_down');
REVOKE ALL ON FUNCTION lie_down FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION lie_down', 'eventstore_app', 'eventstore_auditor', 'eventstore_projector');
