-- GRANT privileges to roles, and skip roles that the server does not have.
CREATE FUNCTION eventstore_grant(privileges text, VARIADIC role_names text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    role_name text;
BEGIN
    FOR role_name IN SELECT r.rolname FROM pg_roles r WHERE r.rolname = ANY (role_names) LOOP
        BEGIN
            EXECUTE format('GRANT %s TO %I', privileges, role_name);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE WARNING '% may not grant % to %', session_user, privileges, role_name;
        END;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION eventstore_grant FROM PUBLIC;
