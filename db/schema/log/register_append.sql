-- Register an append before it takes a position, until its commit is visible: a shared advisory lock (the gate, see
-- docs/concepts/order.md). Returns whether a session may be waiting; CASE reads that flag only after the lock is held.
CREATE FUNCTION register_append() RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    may_have_waiters boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM refuse_old_snapshots();
    END IF;
    SELECT CASE
               WHEN pg_advisory_xact_lock_shared(
                        'events_position'::regclass::oid::bigint::bit(32)::integer,
                        low_32_bits(s.last_value - CASE WHEN s.is_called THEN 0 ELSE 1 END)
                    ) IS NOT NULL
                   THEN (SELECT c.last_value > 0 FROM waiter_flag c)
           END
      INTO may_have_waiters
      FROM events_position s;
    RETURN may_have_waiters;
END
$$;

SELECT eventstore_own('FUNCTION register_append');
REVOKE ALL ON FUNCTION register_append FROM PUBLIC;
