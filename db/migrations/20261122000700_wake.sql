-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Sleeping without a slot for each consumer. All sleepers share one lock, and an append reads one flag, whatever their
-- number. Argued in eventstore/ORDER.md.

DROP FUNCTION claim_slot();
DROP FUNCTION lie_down(integer, bigint);
DROP FUNCTION get_up(integer);

-- The flag: 1 from when somebody lies down until an append finds that nobody sleeps any more. A sequence, because a
-- changed value is visible at once. It keeps its name: a new one could be taken.
SELECT setval('consumer_slots', 1);
ALTER SEQUENCE consumer_slots MINVALUE 0 MAXVALUE 1 START 0;

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

CREATE FUNCTION get_up() RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT pg_advisory_unlock_shared('consumer_slots'::regclass::oid::bigint::bit(32)::integer, 0);
END;

-- Asked by an append after it holds the gate.
CREATE OR REPLACE FUNCTION somebody_sleeps() RETURNS boolean
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

SELECT eventstore_own('FUNCTION lie_down(bigint)');
SELECT eventstore_own('FUNCTION get_up()');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION get_up();
DROP FUNCTION lie_down(bigint);

SELECT setval('consumer_slots', 1);
ALTER SEQUENCE consumer_slots NO MAXVALUE MINVALUE 1 START 1;

CREATE FUNCTION claim_slot() RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    class integer := 'consumer_slots'::regclass::oid::bigint::bit(32)::integer;
    slot  integer := 1;
BEGIN
    PERFORM pg_advisory_xact_lock(class, 0);
    WHILE NOT pg_try_advisory_lock(class, -slot) LOOP
        slot := slot + 1;
    END LOOP;
    IF slot > (SELECT s.last_value FROM consumer_slots s) THEN
        PERFORM setval('consumer_slots', slot);
    END IF;
    RETURN slot;
END
$$;

CREATE FUNCTION lie_down(slot integer, seen bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    class integer := 'consumer_slots'::regclass::oid::bigint::bit(32)::integer;
BEGIN
    PERFORM refuse_old_snapshots();
    IF NOT pg_try_advisory_lock(class, lie_down.slot) THEN
        RETURN false;
    END IF;
    -- Two statements, for the second needs a snapshot taken after the first found no append in flight.
    IF lowest_gate(lie_down.seen) IS NULL THEN
        IF NOT EXISTS (SELECT FROM events e WHERE e.position > lie_down.seen) THEN
            RETURN true;
        END IF;
    END IF;
    PERFORM pg_advisory_unlock(class, lie_down.slot);
    RETURN false;
END
$$;

CREATE FUNCTION get_up(slot integer) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT pg_advisory_unlock('consumer_slots'::regclass::oid::bigint::bit(32)::integer, get_up.slot);
END;

CREATE OR REPLACE FUNCTION somebody_sleeps() RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    slots integer;
BEGIN
    SELECT s.last_value INTO slots FROM consumer_slots s;
    FOR slot IN 1 .. slots LOOP
        IF NOT pg_try_advisory_xact_lock_shared('consumer_slots'::regclass::oid::bigint::bit(32)::integer, slot) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;

SELECT eventstore_own('FUNCTION ' || f)
  FROM unnest(ARRAY['claim_slot()', 'lie_down(integer, bigint)', 'get_up(integer)']) AS f;
