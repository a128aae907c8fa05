-- Add a rule; see retention_rules. If it is there already, nothing changes.
CREATE FUNCTION add_retention_rule(
    tenant_id text,
    id        uuid,
    age       interval,
    since     text,
    state     text,
    user_id   text,
    metadata  jsonb,
    reason    text,
    actor     text
) RETURNS retention_rules
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    added retention_rules;
BEGIN
    IF append_tenant() <> add_retention_rule.tenant_id THEN
        PERFORM refuse_tenant(add_retention_rule.tenant_id);
    END IF;
    INSERT INTO retention_rules (tenant_id, id, age, since, state, user_id, metadata, reason, added_by)
    VALUES (tenant_id, id, age, since, state, user_id, metadata, reason, actor)
        ON CONFLICT ON CONSTRAINT retention_rules_pkey DO NOTHING;
    SELECT r.*
      INTO added
      FROM retention_rules r
     WHERE r.tenant_id = add_retention_rule.tenant_id
       AND r.id = add_retention_rule.id;
    RETURN added;
END
$$;

SELECT eventstore_set_owner('FUNCTION add_retention_rule');
REVOKE ALL ON FUNCTION add_retention_rule FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION add_retention_rule', 'eventstore_app');
