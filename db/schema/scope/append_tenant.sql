-- The only tenant for which this session may append; null for all tenants. The owner runs it, in an append.
CREATE FUNCTION append_tenant() RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    bound text;
BEGIN
    SELECT b.tenant_id INTO bound FROM bound_logins b WHERE b.login = session_user;
    IF FOUND THEN
        RETURN bound;
    END IF;
    IF NOT may_set_tenant() THEN
        RAISE EXCEPTION 'the login % may not append for any tenant', session_user
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Bind it to a tenant with bind_login, or grant it the role eventstore_app, whose members may set the tenant.';
    END IF;
    RETURN nullif(current_setting('eventstore.tenant', true), '');
END
$$;

SELECT eventstore_set_owner('FUNCTION append_tenant');
REVOKE ALL ON FUNCTION append_tenant FROM PUBLIC;
