-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The wall as before (migration 001540), and cheaper to pass. For which tenant is asked stands in the policies themselves, as
-- asking_tenant has it: to call a function of PL/pgSQL takes as long as to read thirty rows. And a query may say which
-- conversation it is about; then one look at the members does for all its rows. That is a hint: whoever names a conversation
-- sees no more, and whoever names none, or another, no less.

-- Of the logins that are bound each sees itself, which the wall asks on its behalf.
ALTER TABLE bound_logins ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_itself ON bound_logins FOR SELECT USING (login = session_user);
SELECT eventstore_grant('SELECT ON TABLE bound_logins', r)
  FROM unnest(ARRAY['eventstore_reader', 'eventstore_auditor', 'eventstore_search']) AS r;

-- As before, but whoever runs it: so the planner can put it where a policy calls it.
DO $$
BEGIN
    EXECUTE format(
        'CREATE OR REPLACE FUNCTION chooses_tenant() RETURNS boolean
         LANGUAGE sql STABLE PARALLEL SAFE
         RETURN coalesce(pg_has_role(session_user, to_regrole(''eventstore_app''), ''MEMBER''), true)
                OR coalesce(pg_has_role(session_user, to_regrole(%L), ''MEMBER''), false)',
        (SELECT quote_ident(r.rolname)
           FROM pg_class c
           JOIN pg_roles r ON r.oid = c.relowner
          WHERE c.oid = 'events'::regclass)
    );
END
$$;
GRANT EXECUTE ON FUNCTION chooses_tenant() TO PUBLIC;

-- The tenant for which a transaction asks, as a text for policies.
CREATE FUNCTION tenant_of_wall() RETURNS text
LANGUAGE sql STABLE
RETURN '(SELECT coalesce((SELECT b.tenant_id FROM bound_logins b WHERE b.login = session_user),
                         CASE WHEN chooses_tenant() THEN nullif(current_setting(''eventstore.tenant'', true), '''') END))';

CREATE FUNCTION asked_conversation() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('eventstore.about', true), '')::uuid;

-- What the wall asks of the rows of a table with a column tenant_id. Also that the members are those of the user and the
-- tenant is not said here: it is the wall around them.
CREATE FUNCTION wall_of(walled regclass, conversation_column name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    of_user text := '';
    named   text := format('%I.%I', (SELECT c.relname FROM pg_class c WHERE c.oid = walled), conversation_column);
BEGIN
    IF EXISTS (SELECT
                 FROM pg_attribute a
                WHERE a.attrelid = walled AND a.attname = conversation_column AND a.atttypid = 'uuid'::regtype) THEN
        -- One look for each row, however many conversations are his, but for those of the one that the query names.
        of_user := format('OR %1$s = (SELECT m.conversation_id
                                        FROM conversation_members m
                                       WHERE m.conversation_id = asked_conversation())
                           OR (SELECT true FROM conversation_members m WHERE m.conversation_id = %1$s)', named);
    END IF;
    -- In this shape no index can be taken for it, and the planner believes that it holds for all rows: which way leads
    -- to the rows of a query that names its tenant is not for the wall to say.
    RETURN format('CASE WHEN tenant_id = %s AND ((SELECT asking_user()) IS NULL %s) THEN true END IS NOT NULL',
                  tenant_of_wall(), of_user);
END
$$;

SELECT eventstore_own('FUNCTION ' || f)
  FROM unnest(ARRAY['tenant_of_wall()', 'asked_conversation()', 'wall_of(regclass, name)']) AS f;
REVOKE ALL ON FUNCTION tenant_of_wall(), wall_of(regclass, name) FROM PUBLIC;

-- Raises the wall around a table with a column tenant_id: as before, by wall_of.
CREATE OR REPLACE FUNCTION raise_wall(walled regclass, conversation_column name DEFAULT 'conversation_id') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    owner_name  name;
    has_tenant  boolean := EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = walled AND a.attname = 'tenant_id');
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
    EXECUTE format('CREATE POLICY wall ON %s FOR SELECT USING (%s)', walled, wall_of(walled, conversation_column));
END
$$;

DO $$
DECLARE
    walled record;
BEGIN
    FOR walled IN
        SELECT t.name, t.conversation_column
          FROM (SELECT p.projected AS name, p.conversation_column FROM projected_tables() AS p
                 UNION ALL
                VALUES ('events'::regclass, 'conversation_id'::name), ('parked', 'conversation_id')) AS t
          JOIN pg_policy w ON w.polrelid = t.name AND w.polname = 'wall'
    LOOP
        EXECUTE format('ALTER POLICY wall ON %s USING (%s)', walled.name, wall_of(walled.name, walled.conversation_column));
    END LOOP;
    EXECUTE format('ALTER POLICY wall ON conversation_members USING (tenant_id = %s AND user_id = (SELECT asking_user()))',
                   tenant_of_wall());
END
$$;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

CREATE OR REPLACE FUNCTION raise_wall(walled regclass, conversation_column name DEFAULT 'conversation_id') RETURNS void
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

-- Also of tables that a rebuild was making just now.
DO $$
DECLARE
    walled record;
BEGIN
    FOR walled IN
        SELECT c.oid::regclass AS name, c.relname AS short_name,
               CASE c.relname WHEN 'conversations' THEN 'id' ELSE 'conversation_id' END AS conversation_column
          FROM pg_policy p
          JOIN pg_class c ON c.oid = p.polrelid
         WHERE EXISTS (
                   SELECT
                     FROM pg_depend d
                    WHERE d.classid = 'pg_policy'::regclass
                      AND d.objid = p.oid
                      AND d.refclassid = 'pg_proc'::regclass
                      AND d.refobjid = 'asked_conversation()'::regprocedure
               )
    LOOP
        EXECUTE format('ALTER POLICY wall ON %s
                            USING (CASE WHEN tenant_id = (SELECT asking_tenant())
                                         AND ((SELECT asking_user()) IS NULL
                                              OR (SELECT true FROM conversation_members m WHERE m.conversation_id = %I.%I))
                                        THEN true END IS NOT NULL)',
                       walled.name, walled.short_name, walled.conversation_column);
    END LOOP;
END
$$;

ALTER POLICY wall ON conversation_members
    USING (tenant_id = (SELECT asking_tenant()) AND user_id = (SELECT asking_user()));

DROP FUNCTION wall_of(regclass, name);
DROP FUNCTION tenant_of_wall();
DROP FUNCTION asked_conversation();

CREATE OR REPLACE FUNCTION chooses_tenant() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_has_role(session_user, current_user, 'MEMBER')
       OR coalesce(pg_has_role(session_user, to_regrole('eventstore_app'), 'MEMBER'), true);
REVOKE EXECUTE ON FUNCTION chooses_tenant() FROM PUBLIC;

SELECT eventstore_revoke('SELECT ON TABLE bound_logins', r)
  FROM unnest(ARRAY['eventstore_reader', 'eventstore_auditor', 'eventstore_search']) AS r;
DROP POLICY of_itself ON bound_logins;
ALTER TABLE bound_logins DISABLE ROW LEVEL SECURITY;
