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
