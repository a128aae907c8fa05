-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The gate: an order of the log that readers can trust. Argued in eventstore/ORDER.md.

-- The low 32 bits of a position as a signed integer: the second key of an advisory lock.
CREATE FUNCTION low_32_bits(value bigint) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (((value & 4294967295) # 2147483648) - 2147483648)::integer;

-- Highest position that the sequence has handed out; 0 for a fresh one.
CREATE FUNCTION last_position() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT s.last_value - CASE WHEN s.is_called THEN 0 ELSE 1 END FROM events_position s;
END;

-- Every reader and writer of the log relies on seeing what was committed a moment ago.
CREATE FUNCTION refuse_old_snapshots() RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the log cannot be used in a % transaction', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'ES003',
                  DETAIL = 'Its snapshot is older than the locks that order the log: events would be missed silently.',
                  HINT = 'Use a READ COMMITTED transaction, the default of PostgreSQL.';
    END IF;
END
$$;

-- Taken by an append before it takes a position, held until its commit is visible.
CREATE FUNCTION hold_gate() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared('events_position'::regclass::oid::bigint::bit(32)::integer,
                                         low_32_bits(last_position()));
END
$$;

-- The lowest position below which some append in flight may still take one; null where none is in flight.
CREATE FUNCTION lowest_gate(reference bigint) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    -- A lock's key is the low half of a position near the reference: locks just above it are routine.
    SELECT min(lowest_gate.reference + low_32_bits(l.objid::bigint - lowest_gate.reference))
      FROM pg_locks l
     WHERE l.locktype = 'advisory'
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND l.classid = 'events_position'::regclass::oid
       AND l.objsubid = 2
       AND l.granted;
END;

-- The position up to which the log is final. Not monotone: a consumer goes by the greater of this and its
-- checkpoint. The caller reads events in a statement of its own, afterwards.
CREATE FUNCTION log_horizon() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM refuse_old_snapshots();
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'the horizon of the log cannot be read on a standby'
            USING ERRCODE = 'ES004', HINT = 'Connect to the primary.';
    END IF;
    last := last_position();
    RETURN least(last, lowest_gate(last));
END
$$;

-- Who sleeps: each consuming process has a slot, and holds its lock exclusively while it sleeps.

-- last_value is the highest slot ever claimed; a sequence, because a changed value is visible at once.
CREATE SEQUENCE consumer_slots AS integer CACHE 1;

CREATE FUNCTION wake_channel() RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN 'eventstore_' || current_schema();

-- Gives this session the lowest free slot for as long as it lives.
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

-- Lies down to sleep: true if from now on every append will notify, false if there is something to do first.
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

-- Asked by an append after it holds the gate. The shared locks stay until its commit, so nobody lies down
-- on a slot that was found awake before the append can be seen.
CREATE FUNCTION somebody_sleeps() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    class integer := 'consumer_slots'::regclass::oid::bigint::bit(32)::integer;
BEGIN
    FOR slot IN 1 .. (SELECT s.last_value FROM consumer_slots s) LOOP
        IF NOT pg_try_advisory_xact_lock_shared(class, slot) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;

SELECT eventstore_own('SEQUENCE consumer_slots');
SELECT eventstore_own('FUNCTION ' || f)
  FROM unnest(ARRAY[
           'low_32_bits(bigint)', 'last_position()', 'refuse_old_snapshots()', 'hold_gate()',
           'lowest_gate(bigint)', 'log_horizon()', 'wake_channel()', 'claim_slot()',
           'lie_down(integer, bigint)', 'get_up(integer)', 'somebody_sleeps()'
       ]) AS f;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION somebody_sleeps();
DROP FUNCTION get_up(integer);
DROP FUNCTION lie_down(integer, bigint);
DROP FUNCTION claim_slot();
DROP FUNCTION wake_channel();
DROP SEQUENCE consumer_slots;
DROP FUNCTION log_horizon();
DROP FUNCTION lowest_gate(bigint);
DROP FUNCTION hold_gate();
DROP FUNCTION refuse_old_snapshots();
DROP FUNCTION last_position();
DROP FUNCTION low_32_bits(bigint);
