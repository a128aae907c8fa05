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
