-- Create a role of the store, unless the server has it, with its memberships, and grant it to the login that migrates.
--
-- Roles belong to the whole server: they are created once, and stay while any database uses them. A login that may not
-- create roles works without them; everything then belongs to that login. A role with memberships takes one of them at
-- a time by SET ROLE, unless it inherits their rights.
CREATE FUNCTION eventstore_role(role_name text, memberships text[] DEFAULT '{}', inherits boolean DEFAULT true)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    membership text;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER', role_name);
        END IF;
        IF NOT inherits AND (SELECT rolinherit FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('ALTER ROLE %I NOINHERIT', role_name);
        END IF;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'another session has just created the role %', role_name;
        WHEN insufficient_privilege THEN
            RAISE WARNING '% may not create or alter the role %', session_user, role_name;
    END;
    BEGIN
        IF to_regrole(role_name) IS NOT NULL AND NOT pg_has_role(session_user, role_name, 'USAGE') THEN
            EXECUTE format('GRANT %I TO %I', role_name, session_user);
        END IF;
    EXCEPTION
        WHEN insufficient_privilege OR invalid_grant_operation THEN
            RAISE NOTICE '% may not grant the role % to itself', session_user, role_name;
    END;
    FOR membership IN
        SELECT r.rolname
          FROM pg_roles r
          JOIN pg_roles m ON m.rolname = role_name
         WHERE r.rolname = ANY (memberships)
           AND NOT EXISTS (SELECT FROM pg_auth_members a WHERE a.roleid = r.oid AND a.member = m.oid)
    LOOP
        BEGIN
            EXECUTE format('GRANT %I TO %I', membership, role_name);
        EXCEPTION
            WHEN insufficient_privilege OR invalid_grant_operation THEN
                RAISE WARNING '% may not grant the role % to %', session_user, membership, role_name;
        END;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION eventstore_role FROM PUBLIC;

-- migrate:down
DROP FUNCTION eventstore_role;

-- The roles stay if another database uses them.
DO $$
DECLARE
    role_name text;
BEGIN
    FOR role_name IN
        SELECT rolname
          FROM pg_roles
         WHERE rolname IN ('eventstore_app', 'eventstore_auditor', 'eventstore_eraser', 'eventstore_migrator',
                           'eventstore_projector', 'eventstore_reader', 'eventstore_search', 'eventstore_writer', 'eventstore_owner')
    LOOP
        BEGIN
            EXECUTE format('REVOKE ALL ON TABLE eventstore_migrations FROM %I', role_name);
            EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', current_schema(), role_name);
            EXECUTE format('REVOKE ALL ON DATABASE %I FROM %I', current_database(), role_name);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'the rights of % stay: %', role_name, SQLERRM;
        END;
        BEGIN
            EXECUTE format('DROP ROLE %I', role_name);
        EXCEPTION
            WHEN dependent_objects_still_exist OR insufficient_privilege OR undefined_object OR object_in_use THEN
                RAISE NOTICE 'the role % stays: %', role_name, SQLERRM;
        END;
    END LOOP;
END
$$;
