-- Limit each wait for a lock in the rest of the transaction (then SQLSTATE 55P03); a negative number keeps the limit of
-- the session.
CREATE FUNCTION limit_lock_wait(milliseconds integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF milliseconds > 0 THEN
        PERFORM set_config('lock_timeout', milliseconds::text, true);
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION limit_lock_wait');
REVOKE ALL ON FUNCTION limit_lock_wait FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION limit_lock_wait', 'eventstore_eraser');
