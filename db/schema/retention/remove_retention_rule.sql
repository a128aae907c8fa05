-- Remove a rule. Returns it; no row if the tenant has no such rule.
CREATE FUNCTION remove_retention_rule(tenant_id text, id uuid, actor text) RETURNS SETOF retention_rules
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> remove_retention_rule.tenant_id THEN
        PERFORM refuse_tenant(remove_retention_rule.tenant_id);
    END IF;
    -- The trigger records them with the act (record_retention_change).
    PERFORM set_config('eventstore.actor', remove_retention_rule.actor, true) WHERE remove_retention_rule.actor <> '';
    RETURN QUERY
    DELETE FROM retention_rules r
     WHERE r.tenant_id = remove_retention_rule.tenant_id
       AND r.id = remove_retention_rule.id
    RETURNING r.*;
END
$$;

SELECT eventstore_set_owner('FUNCTION remove_retention_rule');
REVOKE ALL ON FUNCTION remove_retention_rule FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION remove_retention_rule', 'eventstore_app');
