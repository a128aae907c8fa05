-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- A role for each part, with the least it needs (eventstore/ROLES.md). Made as the others are (migration 000100): once for
-- the whole server, kept while any database uses them, done without where the login may not make roles.
DO $$
DECLARE
    role_name text;
    is_super  boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = session_user);
BEGIN
    FOREACH role_name IN ARRAY ARRAY['eventstore_migrator', 'eventstore_writer', 'eventstore_reader', 'eventstore_auditor'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER', role_name);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                RAISE NOTICE 'role % was made by somebody else just now', role_name;
            WHEN insufficient_privilege THEN
                RAISE WARNING 'role % is missing and % may not create it', role_name, session_user;
        END;
        BEGIN
            IF NOT is_super AND EXISTS (SELECT FROM pg_roles WHERE rolname = role_name)
               AND NOT pg_has_role(session_user, role_name, 'USAGE') THEN
                EXECUTE format('GRANT %I TO %I', role_name, session_user);
            END IF;
        EXCEPTION
            WHEN insufficient_privilege OR invalid_grant_operation THEN
                RAISE NOTICE '% may not grant role % to itself', session_user, role_name;
        END;
    END LOOP;
END
$$;

-- Who is a member of what: a migrator is as good as the owner; the service becomes writer, reader or auditor by SET ROLE,
-- one at a time, and has the rights of none of them until then.
DO $$
DECLARE
    given    record;
BEGIN
    BEGIN
        IF (SELECT rolinherit FROM pg_roles WHERE rolname = 'eventstore_app') THEN
            ALTER ROLE eventstore_app NOINHERIT;
        END IF;
    EXCEPTION
        WHEN insufficient_privilege THEN
            RAISE WARNING '% may not alter role eventstore_app', session_user;
    END;
    FOR given IN
        SELECT r.rolname AS role_name, m.rolname AS member
          FROM (VALUES ('eventstore_owner', 'eventstore_migrator'), ('eventstore_writer', 'eventstore_app'),
                       ('eventstore_reader', 'eventstore_app'), ('eventstore_auditor', 'eventstore_app')) AS w (role_name, member)
          JOIN pg_roles r ON r.rolname = w.role_name
          JOIN pg_roles m ON m.rolname = w.member
         WHERE NOT EXISTS (SELECT FROM pg_auth_members a WHERE a.roleid = r.oid AND a.member = m.oid)
    LOOP
        BEGIN
            EXECUTE format('GRANT %I TO %I', given.role_name, given.member);
        EXCEPTION
            WHEN insufficient_privilege OR invalid_grant_operation THEN
                RAISE WARNING '% may not grant % to %', session_user, given.role_name, given.member;
        END;
    END LOOP;
END
$$;

SELECT eventstore_grant(format('USAGE, CREATE ON SCHEMA %I', current_schema()), 'eventstore_migrator'),
       eventstore_grant('SELECT, INSERT, UPDATE, DELETE ON TABLE eventstore_migrations', 'eventstore_migrator');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), r),
       eventstore_grant('SELECT ON TABLE eventstore_migrations', r)
  FROM unnest(ARRAY['eventstore_writer', 'eventstore_reader', 'eventstore_auditor']) AS r;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DO $$
DECLARE
    role_name text;
BEGIN
    FOR role_name IN
        SELECT rolname
          FROM pg_roles
         WHERE rolname IN ('eventstore_migrator', 'eventstore_writer', 'eventstore_reader', 'eventstore_auditor')
    LOOP
        BEGIN
            EXECUTE format('REVOKE ALL ON TABLE eventstore_migrations FROM %I', role_name);
            EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', current_schema(), role_name);
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'grants to % stay: %', role_name, SQLERRM;
        END;
        BEGIN
            EXECUTE format('DROP ROLE %I', role_name);
        EXCEPTION
            WHEN dependent_objects_still_exist OR insufficient_privilege OR undefined_object OR object_in_use THEN
                RAISE NOTICE 'role % stays: %', role_name, SQLERRM;
        END;
    END LOOP;
END
$$;
