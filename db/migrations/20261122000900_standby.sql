-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The position up to which the log is final. Not monotone: a consumer goes by the greater of this and its
-- checkpoint. The caller reads events in a statement of its own, afterwards.
CREATE OR REPLACE FUNCTION log_horizon() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM refuse_old_snapshots();
    IF pg_is_in_recovery() THEN
        -- A standby knows nothing of the locks of the primary. But every checkpoint was a horizon there once, and
        -- whatever it covers was committed, and so is replayed here, before it.
        RETURN (SELECT coalesce(max(c.position), 0) FROM checkpoints c);
    END IF;
    last := last_position();
    RETURN least(last, lowest_gate(last));
END
$$;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

CREATE OR REPLACE FUNCTION log_horizon() RETURNS bigint
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
