-- Return whether an append that found the flag of waiting sessions set must notify. If no session waits any more,
-- the flag is reset.
CREATE FUNCTION has_waiters() RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF pg_try_advisory_xact_lock('waiter_flag'::regclass::oid::bigint::bit(32)::integer, 0) THEN
        -- The last wait has ended. No other begins before this append has ended.
        PERFORM setval('waiter_flag', 0);
        RETURN false;
    END IF;
    -- A session that listens without reading blocks the queue of notifications, which all databases share. If the queue
    -- is full, each commit that notifies fails. So appends stop notifying when it is half full, where the server begins
    -- to warn: waiting sessions poll every few seconds as well.
    RETURN pg_notification_queue_usage() < 0.5;
END
$$;

SELECT eventstore_set_owner('FUNCTION has_waiters');
REVOKE ALL ON FUNCTION has_waiters FROM PUBLIC;
