-- Asked by an append after it holds the gate.
CREATE FUNCTION somebody_sleeps() RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF (SELECT s.last_value FROM consumer_slots s) = 0 THEN
        RETURN false;
    END IF;
    IF pg_try_advisory_xact_lock('consumer_slots'::regclass::oid::bigint::bit(32)::integer, 0) THEN
        -- The last sleeper has got up, or died. Nobody lies down until this append has ended.
        PERFORM setval('consumer_slots', 0);
        RETURN false;
    END IF;
    -- A session that listens and reads nothing holds back the queue of notifications, which all databases share. When it is
    -- full, the commit of whoever notifies fails. So from half on, where the server itself begins to warn, nobody is
    -- notified: waiters look by themselves every few seconds.
    RETURN pg_notification_queue_usage() < 0.5;
END
$$;

SELECT eventstore_own('FUNCTION somebody_sleeps');
REVOKE ALL ON FUNCTION somebody_sleeps FROM PUBLIC;
