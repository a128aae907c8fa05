-- Bounds the waiting for locks in the rest of the transaction to so many milliseconds (SQLSTATE 55P03 beyond); a
-- negative number leaves the session's own bound.
CREATE FUNCTION lock_within(patience integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF patience > 0 THEN
        PERFORM set_config('lock_timeout', patience::text, true);
    END IF;
END
$$;

SELECT eventstore_own('FUNCTION lock_within');
REVOKE ALL ON FUNCTION lock_within FROM PUBLIC;
