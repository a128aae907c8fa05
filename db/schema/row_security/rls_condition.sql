-- The condition of the policy of a table with a column tenant_id. It does not compare the members with the user and the
-- tenant: the policy of conversation_members does.
CREATE FUNCTION rls_condition(target regclass, conversation_column name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    of_user text := '';
    named   text := format('%I.%I', (SELECT c.relname FROM pg_class c WHERE c.oid = target), conversation_column);
BEGIN
    IF EXISTS (SELECT
                 FROM pg_attribute a
                WHERE a.attrelid = target AND a.attname = conversation_column AND a.atttypid = 'uuid'::regtype) THEN
        -- One lookup for each row, however many conversations a user has; one for all rows of the conversation that the
        -- query names.
        of_user := format('OR %1$s = (SELECT m.conversation_id
                                        FROM conversation_members m
                                       WHERE m.conversation_id = current_conversation())
                           OR (SELECT true FROM conversation_members m WHERE m.conversation_id = %1$s)', named);
    END IF;
    -- In this form no index matches it, and the planner assumes that it holds for all rows: the query's own conditions,
    -- not the policy, decide how its rows are found.
    RETURN format('CASE WHEN tenant_id = %s AND ((SELECT current_tenant_user()) IS NULL %s) THEN true END IS NOT NULL',
                  rls_tenant(), of_user);
END
$$;

SELECT eventstore_set_owner('FUNCTION rls_condition');
REVOKE ALL ON FUNCTION rls_condition FROM PUBLIC;
