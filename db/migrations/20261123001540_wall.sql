-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The wall: row level security, which nobody but superusers goes around, not even the owner of the tables.
--
-- Three roles see everything, each only where it is the current user itself: the owner (whose functions append), the
-- projector and, of what it searches, the search. A login that merely inherits one of them does not.

-- Whether the current user is that role. Declared immutable although it is not, so that it is gone when a plan is made:
-- then the wall costs those roles nothing, and full text, whose operators are not leakproof, can use its index. This is
-- right for policies and nothing else: PostgreSQL never uses a plan with row level security for another role than the one
-- it was made for.
CREATE FUNCTION acting_as(role name) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN current_user = role;

-- Raises the wall around a table with a column tenant_id: everybody sees the rows of the tenant for which he asks; a user
-- sees those of conversations of which he is a member, by the column that holds the conversation's id. Of a table
-- without such a column he sees nothing, and of one without tenant_id nobody does but the three roles.
CREATE FUNCTION raise_wall(walled regclass, conversation_column name DEFAULT 'conversation_id') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    owner_name  name;
    short_name  name := (SELECT c.relname FROM pg_class c WHERE c.oid = walled);
    has_tenant  boolean := EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = walled AND a.attname = 'tenant_id');
    of_user     text := '';
BEGIN
    SELECT r.rolname INTO owner_name FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = walled;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', walled);
    PERFORM lower_wall(walled);
    EXECUTE format('CREATE POLICY open_to_owner ON %s TO %I USING (acting_as(%L)) WITH CHECK (acting_as(%L))',
                   walled, owner_name, owner_name, owner_name);
    IF to_regrole('eventstore_projector') IS NOT NULL THEN
        EXECUTE format('CREATE POLICY open_to_projector ON %s TO eventstore_projector
                            USING (acting_as(''eventstore_projector'')) WITH CHECK (acting_as(''eventstore_projector''))', walled);
    END IF;
    IF NOT has_tenant THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT
                 FROM pg_attribute a
                WHERE a.attrelid = walled AND a.attname = conversation_column AND a.atttypid = 'uuid'::regtype) THEN
        -- One look for each row, however many conversations are his; that the members are those of the user and the
        -- tenant is the wall around them.
        of_user := format('OR (SELECT true FROM conversation_members m WHERE m.conversation_id = %I.%I)',
                          short_name, conversation_column);
    END IF;
    -- In this shape no index can be taken for it, and the planner believes that it holds for all rows: which way leads
    -- to the rows of a query that names its tenant is not for the wall to say.
    EXECUTE format('CREATE POLICY wall ON %s FOR SELECT
                        USING (CASE WHEN tenant_id = (SELECT asking_tenant()) AND ((SELECT asking_user()) IS NULL %s)
                                    THEN true END IS NOT NULL)', walled, of_user);
END
$$;

-- Takes the policies of the wall from a table; what others made stays, and so does row level security.
CREATE FUNCTION lower_wall(walled regclass) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    policy name;
BEGIN
    FOR policy IN
        SELECT p.polname
          FROM pg_policy p
         WHERE p.polrelid = walled
           AND p.polname IN ('open_to_owner', 'open_to_projector', 'open_to_search', 'wall')
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', policy, walled);
    END LOOP;
END
$$;

-- The tables of the projections, in all stages that stand behind the wall: a rebuild copies it with the table.
CREATE FUNCTION projected_tables() RETURNS TABLE (projected regclass, conversation_column name)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT c.oid::regclass, CASE c.relname WHEN 'conversations' THEN 'id' ELSE 'conversation_id' END
      FROM pg_class c
     WHERE c.relkind = 'r'
       AND c.relnamespace IN (to_regnamespace(quote_ident(stage_schema('live'))),
                              to_regnamespace(quote_ident(stage_schema('previous'))))
       AND c.relname IN (
               SELECT unnest(t.tables) FROM projection_texts t
                UNION ALL
               SELECT unnest(ARRAY['conversations', 'messages', 'tasks', 'task_artifacts', 'conversation_actors',
                                   'pending_messages', 'search_documents', 'search_conversations', 'statistics_activity',
                                   'statistics_conversations', 'statistics_answers', 'statistics_tasks',
                                   'statistics_stays'])
           );
END;

SELECT raise_wall('events'), raise_wall('parked');
SELECT raise_wall(t.projected, t.conversation_column) FROM projected_tables() AS t;

-- Of the members everybody sees what the wall asks: the conversations of the user for whom he asks. Those of a
-- conversation members_of shows.
SELECT raise_wall('conversation_members', '');
DROP POLICY wall ON conversation_members;
CREATE POLICY wall ON conversation_members FOR SELECT
    USING (tenant_id = (SELECT asking_tenant()) AND user_id = (SELECT asking_user()));

-- The search sees all that it searches, and applies tenant and user itself.
DO $$
DECLARE
    searched text;
BEGIN
    IF to_regrole('eventstore_search') IS NULL THEN
        RETURN;
    END IF;
    FOREACH searched IN ARRAY ARRAY['events', 'search_documents', 'search_conversations'] LOOP
        EXECUTE format('CREATE POLICY open_to_search ON %I FOR SELECT TO eventstore_search USING (acting_as(''eventstore_search''))',
                       searched);
    END LOOP;
END
$$;

-- Who may see and write a conversation, for whoever may see it himself.
CREATE FUNCTION members_of(conversation uuid) RETURNS TABLE (user_id text, access text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT m.user_id, m.access
      FROM conversation_members m
     WHERE m.tenant_id = (SELECT asking_tenant())
       AND m.conversation_id = members_of.conversation
       AND ((SELECT asking_user()) IS NULL
            OR EXISTS (
                   SELECT
                     FROM conversation_members own
                    WHERE own.tenant_id = (SELECT asking_tenant())
                      AND own.conversation_id = members_of.conversation
                      AND own.user_id = (SELECT asking_user())
               ))
     ORDER BY m.access = 'own' DESC, m.user_id;
END;

-- Members who are not what the log gives, of all tenants; null where one of the two does not name them.
CREATE FUNCTION differing_members() RETURNS TABLE (tenant_id text, conversation_id uuid, user_id text, expected text, found text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT coalesce(l.tenant_id, m.tenant_id), coalesce(l.conversation_id, m.conversation_id),
           coalesce(l.user_id, m.user_id), l.access, m.access
      FROM members_of_log() AS l
      FULL JOIN conversation_members m
        ON m.tenant_id = l.tenant_id
       AND m.conversation_id = l.conversation_id
       AND m.user_id = l.user_id
     WHERE m.access IS DISTINCT FROM l.access;
END;

-- What a store checks when it opens: the sequence of positions is as it was made (is_sound) and stands at or above the
-- last event (is_ahead). Projections only come to positions of events, so a checkpoint above the last event says that
-- events are missing, as after restoring a dump that row-level security has filtered.
CREATE FUNCTION positions_are_sound(
    OUT is_sound        boolean,
    OUT is_ahead        boolean,
    OUT last_event      bigint,
    OUT last_checkpoint bigint
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT s.seqcache = 1 AND s.seqincrement = 1 AND NOT s.seqcycle, last_position() >= e.position, e.position, c.position
      FROM pg_sequence s
     CROSS JOIN (SELECT coalesce(max(position), 0) AS position FROM events) AS e
     CROSS JOIN (SELECT coalesce(max(position), 0) AS position FROM checkpoints) AS c
     WHERE s.seqrelid = 'events_position'::regclass;
END;

-- On a standby it reads the checkpoints, which not everybody who reads the log may.
ALTER FUNCTION log_horizon() SECURITY DEFINER;

-- Behind the wall the login that migrates sees no parked conversations, which these move and forget with their stage.
ALTER FUNCTION move_stage(text, text, text) SECURITY DEFINER;
ALTER FUNCTION drop_stage(text, text) SECURITY DEFINER;
REVOKE ALL ON FUNCTION move_stage(text, text, text), drop_stage(text, text) FROM PUBLIC;

SELECT eventstore_own('FUNCTION ' || f)
  FROM unnest(ARRAY['acting_as(name)', 'raise_wall(regclass, name)', 'lower_wall(regclass)', 'projected_tables()',
                    'members_of(uuid)', 'differing_members()', 'positions_are_sound()']) AS f;
REVOKE ALL ON FUNCTION raise_wall(regclass, name), lower_wall(regclass), projected_tables(), members_of(uuid),
                       differing_members(), positions_are_sound()
    FROM PUBLIC;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

GRANT EXECUTE ON FUNCTION move_stage(text, text, text), drop_stage(text, text) TO PUBLIC;
ALTER FUNCTION drop_stage(text, text) SECURITY INVOKER;
ALTER FUNCTION move_stage(text, text, text) SECURITY INVOKER;
ALTER FUNCTION log_horizon() SECURITY INVOKER;

DROP FUNCTION positions_are_sound();
DROP FUNCTION differing_members();
DROP FUNCTION members_of(uuid);

-- Also from tables that a rebuild was making just now.
DO $$
DECLARE
    walled regclass;
BEGIN
    FOR walled IN
        SELECT DISTINCT p.polrelid
          FROM pg_policy p
          JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
         WHERE d.refclassid = 'pg_proc'::regclass
           AND d.refobjid IN ('acting_as(name)'::regprocedure, 'asking_tenant()'::regprocedure)
    LOOP
        PERFORM lower_wall(walled);
        EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY', walled);
    END LOOP;
END
$$;

DROP FUNCTION projected_tables();
DROP FUNCTION raise_wall(regclass, name);
DROP FUNCTION lower_wall(regclass);
DROP FUNCTION acting_as(name);
