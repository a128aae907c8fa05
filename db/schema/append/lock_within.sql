-- Limit the wait for locks in the rest of the transaction to a number of milliseconds (then SQLSTATE 55P03); a negative
-- number keeps the session's own limit.
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
