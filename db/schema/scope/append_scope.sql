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
