-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- What each role may: the table in eventstore/ROLES.md, which a test compares with the catalogs.

CREATE FUNCTION eventstore_revoke(privileges text, role_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = eventstore_revoke.role_name) THEN
        EXECUTE format('REVOKE %s FROM %I', eventstore_revoke.privileges, eventstore_revoke.role_name);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not revoke % from %', session_user, privileges, role_name;
END
$$;

-- The service's role had all that readers and writers have; now it becomes one of them at a time.
SELECT eventstore_revoke(format('ALL ON TABLE %I', t), 'eventstore_app')
  FROM unnest(ARRAY['events', 'conversations', 'messages', 'tasks', 'task_artifacts', 'checkpoints', 'projection_texts',
                    'parked', 'conversation_actors', 'pending_messages', 'search_documents', 'search_conversations',
                    'statistics_activity', 'statistics_conversations', 'statistics_answers', 'statistics_tasks',
                    'statistics_stays']) AS t;
SELECT eventstore_revoke('ALL ON SEQUENCE events_position', r)
  FROM unnest(ARRAY['eventstore_app', 'eventstore_projector']) AS r;
SELECT eventstore_revoke(format('ALL ON FUNCTION %s', p.oid::regprocedure), 'eventstore_app')
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('append_events', 'append_one', 'append_group', 'search_for');

-- Tables of projections of one's own were shown to the service, too.
SELECT eventstore_revoke(format('ALL ON TABLE %s', t.projected), 'eventstore_app'),
       eventstore_grant(format('SELECT ON TABLE %s', t.projected), 'eventstore_reader')
  FROM projected_tables() AS t
 WHERE t.projected NOT IN ('search_documents'::regclass, 'search_conversations'::regclass);
SELECT eventstore_grant(format('SELECT ON TABLE %I', t), 'eventstore_reader')
  FROM unnest(ARRAY['checkpoints', 'projection_texts', 'parked']) AS t;
SELECT eventstore_grant('SELECT ON TABLE events', 'eventstore_auditor');

-- What the wall asks is asked with the rights of whoever stands before it.
SELECT eventstore_grant('SELECT (tenant_id, conversation_id, user_id) ON TABLE conversation_members', r)
  FROM unnest(ARRAY['eventstore_reader', 'eventstore_auditor']) AS r;

-- What does more than to reckon with its arguments is nobody's but the owner's and theirs who are named here.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT p.oid::regprocedure AS function, w.roles
          FROM (VALUES
                   ('hold_gate', ''), ('somebody_sleeps', ''), ('lock_within', ''), ('lowest_gate', ''),
                   ('make_shadows', ''), ('missing_in_shadows', ''), ('move_tables', ''), ('swap_obstacles', ''),
                   ('swap_tables', ''),
                   ('eventstore_grant', 'owner migrator'), ('eventstore_own', 'owner migrator'),
                   ('eventstore_revoke', 'owner migrator'),
                   ('positions_are_sound', 'app'),
                   ('last_position', 'app reader auditor projector search'),
                   ('log_horizon', 'app reader auditor projector'),
                   ('lie_down', 'app auditor projector'), ('get_up', 'app auditor projector'),
                   ('begin_batch', 'projector'), ('differing_members', 'projector'),
                   ('search_for', 'reader'), ('members_of', 'reader'),
                   ('statistics_by_actor', 'reader'), ('statistics_by_day', 'reader'), ('statistics_by_role', 'reader'),
                   ('statistics_by_status', 'reader'), ('statistics_response_times', 'reader'),
                   ('statistics_sizes', 'reader'), ('statistics_task_times', 'reader')
               ) AS w (name, roles)
          JOIN pg_proc p ON p.proname = w.name AND p.pronamespace = current_schema()::regnamespace
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', given.function);
        PERFORM eventstore_grant(format('EXECUTE ON FUNCTION %s', given.function), 'eventstore_' || r)
           FROM unnest(string_to_array(given.roles, ' ')) AS r;
    END LOOP;
END
$$;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DO $$
DECLARE
    given record;
    r     text;
BEGIN
    FOR given IN
        SELECT p.oid::regprocedure AS function, p.proname
          FROM pg_proc p
         WHERE p.pronamespace = current_schema()::regnamespace
           AND p.proname IN (
                   'hold_gate', 'somebody_sleeps', 'lock_within', 'lowest_gate', 'make_shadows', 'missing_in_shadows',
                   'move_tables', 'swap_obstacles', 'swap_tables', 'eventstore_grant', 'eventstore_own',
                   'positions_are_sound', 'last_position', 'log_horizon', 'lie_down', 'get_up', 'begin_batch',
                   'differing_members', 'search_for', 'members_of', 'statistics_by_actor', 'statistics_by_day',
                   'statistics_by_role', 'statistics_by_status', 'statistics_response_times', 'statistics_sizes',
                   'statistics_task_times'
               )
    LOOP
        FOREACH r IN ARRAY ARRAY['app', 'reader', 'auditor', 'projector', 'search', 'migrator'] LOOP
            CONTINUE WHEN given.proname = 'search_for' AND r = 'search';
            PERFORM eventstore_revoke(format('ALL ON FUNCTION %s', given.function), 'eventstore_' || r);
        END LOOP;
        IF given.proname NOT IN ('positions_are_sound', 'differing_members', 'members_of', 'search_for') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', given.function);
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_revoke('ALL ON TABLE conversation_members', r)
  FROM unnest(ARRAY['eventstore_reader', 'eventstore_auditor']) AS r;
SELECT eventstore_revoke('ALL ON TABLE events', 'eventstore_auditor');
SELECT eventstore_revoke(format('ALL ON TABLE %I', t), 'eventstore_reader')
  FROM unnest(ARRAY['checkpoints', 'projection_texts', 'parked']) AS t;
SELECT eventstore_revoke(format('ALL ON TABLE %s', t.projected), 'eventstore_reader'),
       eventstore_grant(format('SELECT ON TABLE %s', t.projected), 'eventstore_app')
  FROM projected_tables() AS t;
SELECT eventstore_grant(format('SELECT ON TABLE %I', t), 'eventstore_app')
  FROM unnest(ARRAY['events', 'checkpoints', 'projection_texts', 'parked']) AS t;
SELECT eventstore_grant('SELECT ON SEQUENCE events_position', r)
  FROM unnest(ARRAY['eventstore_app', 'eventstore_projector']) AS r;
SELECT eventstore_grant(format('EXECUTE ON FUNCTION %s', p.oid::regprocedure), 'eventstore_app')
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('append_events', 'append_one', 'append_group', 'search_for');

DROP FUNCTION eventstore_revoke(text, text);
