-- Register an append before it takes a position, until its commit is visible: a shared advisory lock (the gate, see
-- docs/concepts/order.md). Returns whether the append must notify, because a session waits for events; CASE reads the
-- flag of waiting sessions only after the lock is held. An acknowledged event is durable, whatever the session prefers.
--
-- In SQL, so that the planner replaces a call by the expression. pg_sequence_last_value reads a sequence without a query,
-- which would take several times as long.
CREATE FUNCTION register_append(OUT must_notify boolean)
LANGUAGE sql VOLATILE
RETURN CASE
    -- These two never hold: the one raises an error, the other makes the commit durable.
    WHEN current_setting('transaction_isolation') <> 'read committed' AND refuse_old_snapshots() IS NULL THEN NULL
    WHEN current_setting('synchronous_commit') = 'off' AND set_config('synchronous_commit', 'on', true) IS NULL THEN NULL
    WHEN pg_advisory_xact_lock_shared(
             'events_position'::regclass::oid::bigint::bit(32)::integer,
             -- The value of a sequence is null until it has assigned one.
             low_32_bits(coalesce(pg_sequence_last_value('events_position'), last_position()))
         ) IS NOT NULL
        THEN pg_sequence_last_value('waiter_flag') > 0 AND has_waiters()
END;

SELECT eventstore_set_owner('FUNCTION register_append');
REVOKE ALL ON FUNCTION register_append FROM PUBLIC;
