-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Who asks: a tenant and, within it, a user. Both are said for one transaction at a time, so that a connection can be lent
-- to everybody in turn, also by a pooler:
--
--     SELECT set_config('eventstore.tenant', 'acme', true), set_config('eventstore.user', 'ana', true)
--
-- Without a tenant nothing is seen and nothing is written; without a user, what belongs to the whole tenant.

-- Logins that stand for one tenant, whatever they say.
CREATE TABLE bound_logins (
    login     name NOT NULL,
    tenant_id varchar(255) COLLATE "C" NOT NULL,
    CONSTRAINT bound_logins_pkey PRIMARY KEY (login),
    CONSTRAINT bound_logins_tenant_check CHECK (tenant_id <> '')
);

COMMENT ON TABLE bound_logins IS 'Logins that stand for one tenant, whatever they set; see bind_login';

-- Whether the session's login may say for which tenant it asks: the service and whoever owns all this. Where there is no
-- such role (the login that migrated could not make it) nobody can be told apart from the service. The owner runs this.
CREATE FUNCTION chooses_tenant() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_has_role(session_user, current_user, 'MEMBER')
       OR coalesce(pg_has_role(session_user, to_regrole('eventstore_app'), 'MEMBER'), true);

-- The tenant for which this transaction asks; null if it asks for none. It goes by the login of the session, which SET
-- ROLE does not change.
CREATE FUNCTION asking_tenant() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    bound text;
BEGIN
    SELECT b.tenant_id INTO bound FROM bound_logins b WHERE b.login = session_user;
    IF FOUND THEN
        RETURN bound;
    END IF;
    IF chooses_tenant() THEN
        RETURN nullif(current_setting('eventstore.tenant', true), '');
    END IF;
    RETURN NULL;
END
$$;

-- The user for whom this transaction asks; null for the whole tenant.
CREATE FUNCTION asking_user() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('eventstore.user', true), '');

-- The only tenant for which this session may append now; null for all of them. Run by the owner, for an append.
CREATE FUNCTION writing_tenant() RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    bound text;
BEGIN
    SELECT b.tenant_id INTO bound FROM bound_logins b WHERE b.login = session_user;
    IF FOUND THEN
        RETURN bound;
    END IF;
    IF NOT chooses_tenant() THEN
        RAISE EXCEPTION 'the login % may append for no tenant', session_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Bind it to a tenant with bind_login, or grant it the role eventstore_app, whose members may choose.';
    END IF;
    RETURN nullif(current_setting('eventstore.tenant', true), '');
END
$$;

CREATE FUNCTION refuse_tenant(tenant_id text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RAISE EXCEPTION 'this session may not append for the tenant "%"', tenant_id
        USING ERRCODE = 'insufficient_privilege',
              DETAIL = 'It asks for another tenant: that of its login, or that of the setting eventstore.tenant.',
              HINT = 'Set eventstore.tenant to the tenant of the events; a login that is bound to one appends for it alone.';
END
$$;

-- Binds a login to a tenant: from now on it asks for that one, whatever it sets.
CREATE FUNCTION bind_login(login name, tenant text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    found_role pg_roles;
BEGIN
    SELECT r.* INTO found_role FROM pg_roles r WHERE r.rolname = bind_login.login;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no login %', quote_nullable(login)
            USING ERRCODE = 'undefined_object', HINT = 'Create it with CREATE ROLE … LOGIN first.';
    END IF;
    IF found_role.rolsuper OR found_role.rolbypassrls
       OR pg_has_role(login, (SELECT c.relowner FROM pg_class c WHERE c.oid = 'events'::regclass), 'MEMBER')
       OR coalesce(pg_has_role(login, to_regrole('eventstore_projector'), 'MEMBER'), false) THEN
        RAISE EXCEPTION 'the login % sees every tenant: binding it would not change that', quote_ident(login)
            USING ERRCODE = 'invalid_grant_operation',
                  HINT = 'Bind a login that is no superuser, has no BYPASSRLS, and is no member of the owner or eventstore_projector.';
    END IF;
    INSERT INTO bound_logins AS b (login, tenant_id)
    VALUES (bind_login.login, bind_login.tenant)
        ON CONFLICT ON CONSTRAINT bound_logins_pkey DO UPDATE SET tenant_id = excluded.tenant_id;
END
$$;

-- Takes the binding away; false if there was none.
CREATE FUNCTION unbind_login(login name) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM bound_logins b WHERE b.login = unbind_login.login;
    RETURN FOUND;
END
$$;

SELECT eventstore_own('TABLE bound_logins');
SELECT eventstore_own('FUNCTION ' || f)
  FROM unnest(ARRAY['chooses_tenant()', 'asking_tenant()', 'asking_user()', 'writing_tenant()', 'refuse_tenant(text)',
                    'bind_login(name, text)', 'unbind_login(name)']) AS f;
REVOKE ALL ON FUNCTION chooses_tenant(), writing_tenant(), refuse_tenant(text), bind_login(name, text), unbind_login(name)
    FROM PUBLIC;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION unbind_login(name);
DROP FUNCTION bind_login(name, text);
DROP FUNCTION refuse_tenant(text);
DROP FUNCTION writing_tenant();
DROP FUNCTION asking_user();
DROP FUNCTION asking_tenant();
DROP FUNCTION chooses_tenant();
DROP TABLE bound_logins;
