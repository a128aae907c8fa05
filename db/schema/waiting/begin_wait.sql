-- Begin to wait for events after a position: true if from now on each append will notify, false if there is something
-- to read first. All waiting sessions share one lock, and an append reads one flag, however many wait. Argued in
-- docs/concepts/order.md.
CREATE FUNCTION begin_wait(seen bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
-- Outdated statistics must not lead to a scan of the whole log for events that are not there. Before PostgreSQL 18 this
-- makes reading a sequence look so expensive that the query would be JIT-compiled.
SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    class integer := 'waiter_flag'::regclass::oid::bigint::bit(32)::integer;
BEGIN
    PERFORM refuse_old_snapshots();
    IF NOT pg_try_advisory_lock_shared(class, 0) THEN
        RETURN false;
    END IF;
    IF (SELECT s.last_value FROM waiter_flag s) = 0 THEN
        -- A crash that loses the flag also ends the waiting sessions, so it need not be durable.
        PERFORM set_config('synchronous_commit', 'off', true),
                setval('waiter_flag', 1);
    END IF;
    -- Two statements: the snapshot of the second must be taken after the first has found no append in progress.
    IF lowest_append_in_flight(begin_wait.seen) IS NULL THEN
        IF NOT EXISTS (SELECT FROM events e WHERE e.position > begin_wait.seen) THEN
            RETURN true;
        END IF;
    END IF;
    PERFORM pg_advisory_unlock_shared(class, 0);
    RETURN false;
END
$$;

SELECT eventstore_set_owner('FUNCTION begin_wait');
REVOKE ALL ON FUNCTION begin_wait FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION begin_wait',
                        'eventstore_app', 'eventstore_auditor', 'eventstore_projector');
