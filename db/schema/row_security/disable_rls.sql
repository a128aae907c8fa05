-- Drop the policies of enable_rls; other policies stay, and row-level security stays enabled.
CREATE FUNCTION disable_rls(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    policy name;
BEGIN
    FOR policy IN
        SELECT p.polname
          FROM pg_policy p
         WHERE p.polrelid = target
           AND p.polname IN ('open_to_owner', 'open_to_projector', 'open_to_search', 'open_to_eraser',
                            'open_to_caller', 'require_tenant')
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', policy, target);
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION disable_rls');
REVOKE ALL ON FUNCTION disable_rls FROM PUBLIC;
