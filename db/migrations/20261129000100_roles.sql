-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Refuse before anything is created if objects of others have names of ours.
DO $$
DECLARE
    taken text;
BEGIN
    SELECT string_agg(c.relname, ', ' ORDER BY c.relname)
      INTO taken
      FROM pg_class c
     WHERE c.relnamespace = current_schema()::regnamespace
       AND c.relname IN ('bound_logins', 'conversation_members', 'events_position', 'events', 'waiter_flag', 'checkpoints', 'projection_definitions', 'parked', 'paused_projections', 'conversations', 'messages', 'tasks', 'task_artifacts', 'conversation_actors', 'pending_messages', 'search_documents', 'search_conversations', 'statistics_activity', 'statistics_conversations', 'statistics_answers', 'statistics_tasks', 'statistics_status_periods', 'identity_tenants', 'identity_users', 'identity_keys', 'identity_erasures', 'idempotency_keys', 'server_secrets', 'answer_leases', 'blobs', 'blob_chunks', 'audit_tiles', 'audit_checkpoints', 'audit_cosignatures', 'pending_receipts', 'legal_holds', 'retention_rules', 'audit_trail', 'audit_acts');
    IF taken IS NOT NULL THEN
        RAISE EXCEPTION
            'the schema "%" already has other objects named %: set EVENTSTORE_SCHEMA to a schema of its own, or rename them',
            current_schema(), taken USING ERRCODE = 'duplicate_table';
    END IF;
END
$$;

-- file: roles/eventstore_role.sql
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

-- file: roles/eventstore_set_owner.sql
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

-- file: roles/eventstore_grant.sql
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

-- file: roles/eventstore_owner.sql
-- The owner of all objects. Functions that append to the log run with its rights.
SELECT eventstore_role('eventstore_owner');
SELECT eventstore_grant(format('USAGE, CREATE ON SCHEMA %I', current_schema()), 'eventstore_owner');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_owner');
SELECT eventstore_grant('EXECUTE ON FUNCTION eventstore_role, eventstore_set_owner, eventstore_grant', 'eventstore_owner');

-- file: roles/eventstore_migrator.sql
-- The role of logins that migrate, a member of the owner. See docs/concepts/roles.md for all roles.
SELECT eventstore_role('eventstore_migrator', ARRAY['eventstore_owner']);
SELECT eventstore_grant(format('USAGE, CREATE ON SCHEMA %I', current_schema()), 'eventstore_migrator');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE ON TABLE eventstore_migrations', 'eventstore_migrator');
SELECT eventstore_grant('EXECUTE ON FUNCTION eventstore_role, eventstore_set_owner, eventstore_grant', 'eventstore_migrator');

-- file: roles/eventstore_writer.sql
-- The role that appends events.
SELECT eventstore_role('eventstore_writer');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_writer');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_writer');

-- file: roles/eventstore_reader.sql
-- The role that reads the read tables, behind row-level security.
SELECT eventstore_role('eventstore_reader');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_reader');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_reader');

-- file: roles/eventstore_auditor.sql
-- The role that reads the log, behind row-level security.
SELECT eventstore_role('eventstore_auditor');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_auditor');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_auditor');

-- file: roles/eventstore_app.sql
-- The role of the service's logins. It becomes writer, reader or auditor by SET ROLE, one at a time, and has none of
-- their rights until then.
SELECT eventstore_role('eventstore_app', ARRAY['eventstore_writer', 'eventstore_reader', 'eventstore_auditor'],
                       inherits => false);
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_app');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_app');

-- file: roles/eventstore_projector.sql
-- The role of workers. It reads the log of all tenants and fills the read tables.
SELECT eventstore_role('eventstore_projector');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_projector');
SELECT eventstore_grant(format('TEMPORARY ON DATABASE %I', current_database()), 'eventstore_projector');

-- file: roles/eventstore_search.sql
-- The owner of search_for. Full text and row-level security do not go together: the operators are not leakproof, so the
-- index would not be used. This role sees the documents of all tenants, and search_for applies tenant and user itself.
SELECT eventstore_role('eventstore_search');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_search');

-- file: roles/eventstore_eraser.sql
-- The role that erases. It reads the log behind row-level security, and may turn events into their erased form and
-- nothing else. No other role may, not even the owner of the table. A login takes it by SET ROLE, and needs
-- eventstore_projector beside it, to fold the read tables again.
SELECT eventstore_role('eventstore_eraser');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_eraser');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_eraser');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION eventstore_grant;
DROP FUNCTION eventstore_set_owner;
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
