-- migrate:up

-- Pins the schema in what follows, with temporary objects last: nobody can put one in front of ours.
SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Refuse before anything is made if another owner already uses one of our names.
DO $$
DECLARE
    taken text;
BEGIN
    SELECT string_agg(c.relname, ', ' ORDER BY c.relname)
      INTO taken
      FROM pg_class c
     WHERE c.relnamespace = current_schema()::regnamespace
       AND c.relname IN (
               'events', 'events_position', 'consumer_slots', 'checkpoints',
               'conversations', 'messages', 'tasks', 'task_artifacts', 'projection_texts', 'parked',
               'conversation_actors', 'search_documents', 'search_conversations', 'statistics_activity',
               'statistics_conversations', 'statistics_answers', 'statistics_tasks', 'statistics_stays',
               'pending_messages', 'conversation_members', 'bound_logins', 'identity_tenants', 'identity_users',
               'identity_keys'
           );
    IF taken IS NOT NULL THEN
        RAISE EXCEPTION
            'the schema "%" already has other objects named %: set EVENTSTORE_SCHEMA to a schema of its own, or rename them',
            current_schema(), taken USING ERRCODE = 'duplicate_table';
    END IF;
END
$$;

-- Roles belong to the whole server: made once, kept while any database uses them. A login that may not
-- make roles works without them; everything then belongs to that login.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['eventstore_owner', 'eventstore_app', 'eventstore_projector'] LOOP
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
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = role_name)
               AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
                EXECUTE format('GRANT %I TO %I', role_name, session_user);
            END IF;
        EXCEPTION
            WHEN insufficient_privilege OR invalid_grant_operation THEN
                RAISE NOTICE '% may not grant role % to itself', session_user, role_name;
        END;
    END LOOP;
END
$$;

-- GRANT that tolerates the absence of the role, so that grants can stand beside what they grant.
CREATE FUNCTION eventstore_grant(privileges text, role_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = eventstore_grant.role_name) THEN
        EXECUTE format('GRANT %s TO %I', eventstore_grant.privileges, eventstore_grant.role_name);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not grant % to %', session_user, privileges, role_name;
END
$$;

-- Hands an object just made to the owner role, where the login can.
CREATE FUNCTION eventstore_own(object text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'eventstore_owner') THEN
        EXECUTE format('ALTER %s OWNER TO eventstore_owner', eventstore_own.object);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not hand % to eventstore_owner', session_user, object;
END
$$;

SELECT eventstore_grant(format('USAGE, CREATE ON SCHEMA %I', current_schema()), 'eventstore_owner');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_app');
SELECT eventstore_grant(format('USAGE ON SCHEMA %I', current_schema()), 'eventstore_projector');
SELECT eventstore_grant(format('TEMPORARY ON DATABASE %I', current_database()), 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_owner');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_app');
SELECT eventstore_grant('SELECT ON TABLE eventstore_migrations', 'eventstore_projector');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION eventstore_own(text);
DROP FUNCTION eventstore_grant(text, text);

DO $$
DECLARE
    role_name text;
BEGIN
    FOR role_name IN
        SELECT rolname FROM pg_roles WHERE rolname IN ('eventstore_owner', 'eventstore_app', 'eventstore_projector')
    LOOP
        BEGIN
            EXECUTE format('REVOKE ALL ON TABLE eventstore_migrations FROM %I', role_name);
            EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', current_schema(), role_name);
            EXECUTE format('REVOKE ALL ON DATABASE %I FROM %I', current_database(), role_name);
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
