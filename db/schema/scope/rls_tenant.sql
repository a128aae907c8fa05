-- The tenant of a transaction, as an expression for policies: current_tenant without the call, which takes as long as
-- reading thirty rows.
CREATE FUNCTION rls_tenant() RETURNS text
LANGUAGE sql STABLE
RETURN '(SELECT coalesce((SELECT b.tenant_id FROM bound_logins b WHERE b.login = session_user),
                         CASE WHEN may_set_tenant() THEN nullif(current_setting(''eventstore.tenant'', true), '''') END))';

SELECT eventstore_set_owner('FUNCTION rls_tenant');
REVOKE ALL ON FUNCTION rls_tenant FROM PUBLIC;
