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
