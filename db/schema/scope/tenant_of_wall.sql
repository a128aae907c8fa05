-- The tenant of a transaction, as an expression for policies: asking_tenant without the call, which takes as long as
-- reading thirty rows.
CREATE FUNCTION tenant_of_wall() RETURNS text
LANGUAGE sql STABLE
RETURN '(SELECT coalesce((SELECT b.tenant_id FROM bound_logins b WHERE b.login = session_user),
                         CASE WHEN chooses_tenant() THEN nullif(current_setting(''eventstore.tenant'', true), '''') END))';

SELECT eventstore_own('FUNCTION tenant_of_wall');
REVOKE ALL ON FUNCTION tenant_of_wall FROM PUBLIC;
