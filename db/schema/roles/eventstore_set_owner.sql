-- Make the role eventstore_owner the owner of an object, if the login may.
CREATE FUNCTION eventstore_set_owner(object text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF to_regrole('eventstore_owner') IS NOT NULL THEN
        EXECUTE format('ALTER %s OWNER TO eventstore_owner', object);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not make eventstore_owner the owner of %', session_user, object;
END
$$;

REVOKE ALL ON FUNCTION eventstore_set_owner FROM PUBLIC;
