-- Register an append before it takes a position, until its commit is visible: a shared advisory lock (the gate, see
-- docs/concepts/order.md). Returns whether the append must notify, because a session waits for events; CASE reads the
-- flag of waiting sessions only after the lock is held. If no session waits any more, the flag is reset.
--
-- pg_sequence_last_value reads a sequence without a query, which would take several times as long.
CREATE FUNCTION register_append(OUT must_notify boolean)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM refuse_old_snapshots();
    END IF;
    must_notify := CASE
        WHEN pg_advisory_xact_lock_shared(
                 'events_position'::regclass::oid::bigint::bit(32)::integer,
                 -- The value of a sequence is null until it has assigned one.
                 low_32_bits(coalesce(pg_sequence_last_value('events_position'), last_position()))
             ) IS NOT NULL
            THEN pg_sequence_last_value('waiter_flag') > 0
    END;
    IF NOT must_notify THEN
        RETURN;
    END IF;
    IF pg_try_advisory_xact_lock('waiter_flag'::regclass::oid::bigint::bit(32)::integer, 0) THEN
        -- The last wait has ended. No other begins before this append has ended.
        PERFORM setval('waiter_flag', 0);
        must_notify := false;
        RETURN;
    END IF;
    -- A session that listens without reading blocks the queue of notifications, which all databases share. If the queue
    -- is full, each commit that notifies fails. So appends stop notifying when it is half full, where the server begins
    -- to warn: waiting sessions poll every few seconds as well.
    must_notify := pg_notification_queue_usage() < 0.5;
END
$$;

SELECT eventstore_set_owner('FUNCTION register_append');
REVOKE ALL ON FUNCTION register_append FROM PUBLIC;
