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

-- migrate:down
DROP FUNCTION may_set_tenant;
