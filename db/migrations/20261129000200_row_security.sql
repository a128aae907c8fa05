-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: scope/bound_logins.sql
-- Logins that act for one tenant, whatever they set; see bind_login. Each of them sees its own row, which policies read
-- on its behalf.
--
-- All other logins of the service set a tenant and, within it, a user, for one transaction at a time, so that a
-- connection, also of a pooler, can be shared by all callers:
--
--     SELECT set_config('eventstore.tenant', 'acme', true), set_config('eventstore.user', 'ana', true)
--
-- Without a tenant a transaction sees and writes nothing; without a user it acts for the whole tenant.
CREATE TABLE bound_logins (
    login     name NOT NULL,
    tenant_id varchar(255) COLLATE "C" NOT NULL,
    CONSTRAINT bound_logins_pkey PRIMARY KEY (login),
    CONSTRAINT bound_logins_tenant_check CHECK (tenant_id <> '')
);

COMMENT ON TABLE bound_logins IS 'Logins that act for one tenant, whatever they set; see bind_login';

ALTER TABLE bound_logins ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_itself ON bound_logins FOR SELECT USING (login = session_user);

SELECT eventstore_set_owner('TABLE bound_logins');
SELECT eventstore_grant('SELECT ON TABLE bound_logins', 'eventstore_auditor', 'eventstore_eraser',
                        'eventstore_reader', 'eventstore_search');

-- file: scope/may_set_tenant.sql
-- Return whether the session's login may set the tenant of a transaction: the service may, and the owner of the log.
-- Without the role eventstore_app (the login that migrated could not create it) every login is taken for the
-- service.
--
-- The owner's name is part of the text, so that it does not matter who runs it and the planner can inline it in
-- policies.
DO $$
BEGIN
    EXECUTE format(
        'CREATE FUNCTION may_set_tenant() RETURNS boolean
         LANGUAGE sql STABLE PARALLEL SAFE
         RETURN coalesce(pg_has_role(session_user, to_regrole(''eventstore_app''), ''MEMBER''), true)
                OR coalesce(pg_has_role(session_user, to_regrole(%L), ''MEMBER''), false)',
        (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = 'bound_logins'::regclass)
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION may_set_tenant');

-- file: scope/current_tenant.sql
-- The tenant of this transaction; null if it has none. It depends on the login of the session, which SET ROLE does not
-- change.
CREATE FUNCTION current_tenant() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    bound text;
BEGIN
    SELECT b.tenant_id INTO bound FROM bound_logins b WHERE b.login = session_user;
    IF FOUND THEN
        RETURN bound;
    END IF;
    IF may_set_tenant() THEN
        RETURN nullif(current_setting('eventstore.tenant', true), '');
    END IF;
    RETURN NULL;
END
$$;

SELECT eventstore_set_owner('FUNCTION current_tenant');

-- file: scope/current_tenant_user.sql
-- The user of this transaction; null if it acts for the whole tenant.
CREATE FUNCTION current_tenant_user() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('eventstore.user', true), '');

SELECT eventstore_set_owner('FUNCTION current_tenant_user');

-- file: scope/append_scope.sql
-- Return one row if this session may append: the only tenant for which it may, or null for all tenants; otherwise no row.
-- It returns a set so that the planner replaces a call by the query.
CREATE FUNCTION append_scope() RETURNS TABLE (tenant_id text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(b.tenant_id, nullif(current_setting('eventstore.tenant', true), ''))
      FROM (SELECT) AS session
      LEFT JOIN bound_logins b
        ON b.login = session_user
     WHERE b.login IS NOT NULL
        OR may_set_tenant();
END;

SELECT eventstore_set_owner('FUNCTION append_scope');
REVOKE ALL ON FUNCTION append_scope FROM PUBLIC;

-- file: scope/append_tenant.sql
-- The only tenant for which this session may append; null for all tenants. The owner runs it, in an append.
CREATE FUNCTION append_tenant() RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    tenant text;
BEGIN
    SELECT s.tenant_id INTO tenant FROM append_scope() AS s;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the login % may not append for any tenant', session_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Bind it to a tenant with bind_login, or grant it the role eventstore_app, whose members may set the tenant.';
    END IF;
    RETURN tenant;
END
$$;

SELECT eventstore_set_owner('FUNCTION append_tenant');
REVOKE ALL ON FUNCTION append_tenant FROM PUBLIC;

-- file: scope/refuse_tenant.sql
-- Raise the error of an append for a tenant that is not the transaction's own.
CREATE FUNCTION refuse_tenant(tenant_id text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RAISE EXCEPTION 'this session may not append for the tenant "%"', tenant_id
        USING ERRCODE = 'insufficient_privilege',
              DETAIL = 'It acts for another tenant: that of its login, or that of the setting eventstore.tenant.',
              HINT = 'Set eventstore.tenant to the tenant of the events; a login that is bound to one appends for it alone.';
END
$$;

SELECT eventstore_set_owner('FUNCTION refuse_tenant');
REVOKE ALL ON FUNCTION refuse_tenant FROM PUBLIC;

-- file: scope/bind_login.sql
-- Bind a login to a tenant: from now on it acts for that tenant, whatever it sets.
CREATE FUNCTION bind_login(login name, tenant text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    found_role pg_roles;
BEGIN
    SELECT r.* INTO found_role FROM pg_roles r WHERE r.rolname = bind_login.login;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the login % does not exist', quote_nullable(login)
            USING ERRCODE = 'undefined_object', HINT = 'Create it with CREATE ROLE … LOGIN first.';
    END IF;
    IF found_role.rolsuper OR found_role.rolbypassrls
       OR pg_has_role(login, (SELECT c.relowner FROM pg_class c WHERE c.oid = 'events'::regclass), 'MEMBER')
       OR coalesce(pg_has_role(login, to_regrole('eventstore_projector'), 'MEMBER'), false) THEN
        RAISE EXCEPTION 'the login % sees every tenant: binding it would not change that', quote_ident(login)
            USING ERRCODE = 'invalid_grant_operation',
                  HINT = 'Bind a login that is not a superuser, does not have BYPASSRLS, and is not a member of the owner or eventstore_projector.';
    END IF;
    INSERT INTO bound_logins AS b (login, tenant_id)
    VALUES (bind_login.login, bind_login.tenant)
        ON CONFLICT ON CONSTRAINT bound_logins_pkey DO UPDATE SET tenant_id = excluded.tenant_id;
END
$$;

SELECT eventstore_set_owner('FUNCTION bind_login');
REVOKE ALL ON FUNCTION bind_login FROM PUBLIC;

-- file: scope/unbind_login.sql
-- Remove the binding of a login; false if it had none.
CREATE FUNCTION unbind_login(login name) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM bound_logins b WHERE b.login = unbind_login.login;
    RETURN FOUND;
END
$$;

SELECT eventstore_set_owner('FUNCTION unbind_login');
REVOKE ALL ON FUNCTION unbind_login FROM PUBLIC;

-- file: scope/login_is_bound.sql
-- Return whether the login of the session is bound to one tenant. Such a login may not use the tables of the
-- service, even if it has the service's role: it could create a key of another tenant. The owner passes, because
-- foreign keys are checked in its name.
CREATE FUNCTION login_is_bound() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT
RETURN EXISTS (SELECT FROM bound_logins b WHERE b.login = session_user);

SELECT eventstore_set_owner('FUNCTION login_is_bound');
REVOKE ALL ON FUNCTION login_is_bound FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION login_is_bound', 'eventstore_app');

-- file: scope/rls_tenant.sql
-- The tenant of a transaction, as an expression for policies: current_tenant without the call, which takes as long as
-- reading thirty rows.
CREATE FUNCTION rls_tenant() RETURNS text
LANGUAGE sql STABLE
RETURN '(SELECT coalesce((SELECT b.tenant_id FROM bound_logins b WHERE b.login = session_user),
                         CASE WHEN may_set_tenant() THEN nullif(current_setting(''eventstore.tenant'', true), '''') END))';

SELECT eventstore_set_owner('FUNCTION rls_tenant');
REVOKE ALL ON FUNCTION rls_tenant FROM PUBLIC;

-- file: scope/current_conversation.sql
-- The conversation that a query names as its only one, by the setting eventstore.conversation_id: policies then look up its
-- members once instead of once a row. It is a hint; naming a conversation shows no more rows, and naming none shows no
-- fewer.
CREATE FUNCTION current_conversation() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('eventstore.conversation_id', true), '')::uuid;

SELECT eventstore_set_owner('FUNCTION current_conversation');

-- file: row_security/is_current_role.sql
-- Return whether a role is the current user. Declared immutable although it is not, so that the planner replaces it
-- by its value: then policies cost those roles nothing, and full text, whose operators are not leakproof, can use
-- its index. This is only right in policies: PostgreSQL never uses a plan with row-level security for another role
-- than the one it was made for.
CREATE FUNCTION is_current_role(role name) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN current_user = role;

SELECT eventstore_set_owner('FUNCTION is_current_role');

-- file: row_security/require_tenant.sql
-- Raise an error unless the transaction has a tenant; for logins that inherit the owner's rights to the tables without
-- being the owner. Row-level security hides every row from them, and what they copy, as pg_dump does with
-- --enable-row-security, would be empty without a word.
CREATE FUNCTION require_tenant() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    owner_name name := (SELECT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = 'bound_logins'::regclass);
BEGIN
    IF current_tenant() IS NULL THEN
        RAISE EXCEPTION 'row-level security hides all rows from %, which has no tenant', current_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Set eventstore.tenant; or, for all rows, SET ROLE %1$I (pg_dump --role=%1$s --enable-row-security).',
                                owner_name);
    END IF;
    RETURN true;
END
$$;

SELECT eventstore_set_owner('FUNCTION require_tenant');

-- file: row_security/disable_rls.sql
-- Drop the policies of enable_rls; other policies stay, and row-level security stays enabled.
CREATE FUNCTION disable_rls(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    policy name;
BEGIN
    FOR policy IN
        SELECT p.polname
          FROM pg_policy p
         WHERE p.polrelid = target
           AND p.polname IN ('open_to_owner', 'open_to_projector', 'open_to_search', 'open_to_eraser',
                            'open_to_caller', 'require_tenant')
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', policy, target);
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION disable_rls');
REVOKE ALL ON FUNCTION disable_rls FROM PUBLIC;

-- file: row_security/rls_condition.sql
-- The condition of the policy of a table with a column tenant_id. It does not compare the members with the user and the
-- tenant: the policy of conversation_members does.
CREATE FUNCTION rls_condition(target regclass, conversation_column name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    of_user text := '';
    named   text := format('%I.%I', (SELECT c.relname FROM pg_class c WHERE c.oid = target), conversation_column);
BEGIN
    IF EXISTS (SELECT
                 FROM pg_attribute a
                WHERE a.attrelid = target AND a.attname = conversation_column AND a.atttypid = 'uuid'::regtype) THEN
        -- One lookup for each row, however many conversations a user has; one for all rows of the conversation that the
        -- query names.
        of_user := format('OR %1$s = (SELECT m.conversation_id
                                        FROM conversation_members m
                                       WHERE m.conversation_id = current_conversation())
                           OR (SELECT true FROM conversation_members m WHERE m.conversation_id = %1$s)', named);
    END IF;
    -- In this form no index matches it, and the planner assumes that it holds for all rows: the query's own conditions,
    -- not the policy, decide how its rows are found.
    RETURN format('CASE WHEN tenant_id = %s AND ((SELECT current_tenant_user()) IS NULL %s) THEN true END IS NOT NULL',
                  rls_tenant(), of_user);
END
$$;

SELECT eventstore_set_owner('FUNCTION rls_condition');
REVOKE ALL ON FUNCTION rls_condition FROM PUBLIC;

-- file: row_security/enable_rls.sql
-- Enable row-level security on a table. It holds for all but superusers, even for the owner of the table.
--
-- The eraser may change the events of its tenant; the triggers of the table refuse all other changes.
--
-- Three roles see all rows, each only while it is the current user itself: the owner (whose functions append), the
-- projector and, in the tables that it searches, the search. A login that merely inherits one of them does not; if it
-- inherits the owner, reading without a tenant is an error.
--
-- All others see the rows of their tenant, by the column tenant_id; a user among them those of conversations of
-- which they are a member, by the column that holds the conversation's id. In a table without such a column a user sees
-- nothing, and in one without tenant_id nobody does but the three roles.
CREATE FUNCTION enable_rls(target regclass, conversation_column name DEFAULT 'conversation_id') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    owner_name  name;
    has_tenant  boolean := EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = 'tenant_id');
BEGIN
    SELECT r.rolname INTO owner_name FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = target;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', target);
    PERFORM disable_rls(target);
    EXECUTE format('CREATE POLICY open_to_owner ON %s TO %I USING (is_current_role(%L)) WITH CHECK (is_current_role(%L))',
                   target, owner_name, owner_name, owner_name);
    -- It never holds; it raises the error.
    EXECUTE format('CREATE POLICY require_tenant ON %s FOR SELECT TO %I
                        USING (NOT (is_current_role(%L) OR (SELECT require_tenant())))', target, owner_name, owner_name);
    IF to_regrole('eventstore_projector') IS NOT NULL THEN
        EXECUTE format('CREATE POLICY open_to_projector ON %s TO eventstore_projector
                            USING (is_current_role(''eventstore_projector'')) WITH CHECK (is_current_role(''eventstore_projector''))', target);
    END IF;
    IF to_regrole('eventstore_search') IS NOT NULL
       AND target IN (to_regclass('events'), to_regclass('search_documents'), to_regclass('search_conversations')) THEN
        EXECUTE format('CREATE POLICY open_to_search ON %s FOR SELECT TO eventstore_search
                            USING (is_current_role(''eventstore_search''))', target);
    END IF;
    IF NOT has_tenant THEN
        RETURN;
    END IF;
    IF to_regrole('eventstore_eraser') IS NOT NULL AND target = to_regclass('events') THEN
        EXECUTE format('CREATE POLICY open_to_eraser ON %s FOR UPDATE TO eventstore_eraser USING (tenant_id = %s)',
                       target, rls_tenant());
    END IF;
    EXECUTE format('CREATE POLICY open_to_caller ON %s FOR SELECT USING (%s)', target, rls_condition(target, conversation_column));
END
$$;

SELECT eventstore_set_owner('FUNCTION enable_rls');
REVOKE ALL ON FUNCTION enable_rls FROM PUBLIC;

-- file: members/conversation_members.sql
-- The users who may see and append to a conversation. Only the append functions write here, in the transaction of the
-- append, so that sharing and unsharing take effect when the append returns. The log can recreate it (members_of_log).
CREATE TABLE conversation_members (
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    user_id         varchar(255) COLLATE "C" NOT NULL,
    access          text COLLATE "C" NOT NULL,
    CONSTRAINT conversation_members_access_check CHECK (access IN ('own', 'write', 'read')),
    CONSTRAINT conversation_members_user_check CHECK (user_id <> '')
);

CREATE INDEX idx_conversation_members_user_id ON conversation_members (tenant_id, user_id, conversation_id);

-- Created last: see the table conversations.
ALTER TABLE conversation_members ADD CONSTRAINT conversation_members_pkey PRIMARY KEY (tenant_id, conversation_id, user_id);

COMMENT ON TABLE conversation_members IS
    'Users who may see and append to a conversation; written by the append functions alone';
COMMENT ON COLUMN conversation_members.access IS 'own: also share and delete; write: also append; read';

SELECT eventstore_set_owner('TABLE conversation_members');
SELECT eventstore_grant('SELECT (tenant_id, conversation_id, user_id) ON TABLE conversation_members',
                        'eventstore_auditor', 'eventstore_eraser', 'eventstore_reader');
SELECT eventstore_grant('SELECT ON TABLE conversation_members', 'eventstore_search');

-- Users see their own memberships, which the policies of other tables read. Those of others are shown by members_of.
SELECT enable_rls('conversation_members', '');
DO $$
BEGIN
    EXECUTE format('ALTER POLICY open_to_caller ON conversation_members USING (tenant_id = %s AND user_id = (SELECT current_tenant_user()))',
                   rls_tenant());
END
$$;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP TABLE conversation_members;
DROP FUNCTION enable_rls;
DROP FUNCTION rls_condition;
DROP FUNCTION disable_rls;
DROP FUNCTION require_tenant;
DROP FUNCTION is_current_role;
DROP FUNCTION current_conversation;
DROP FUNCTION rls_tenant;
DROP FUNCTION login_is_bound;
DROP FUNCTION unbind_login;
DROP FUNCTION bind_login;
DROP FUNCTION refuse_tenant;
DROP FUNCTION append_tenant;
DROP FUNCTION append_scope;
DROP FUNCTION current_tenant_user;
DROP FUNCTION current_tenant;
DROP FUNCTION may_set_tenant;
DROP TABLE bound_logins;
