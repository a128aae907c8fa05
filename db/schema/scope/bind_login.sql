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
