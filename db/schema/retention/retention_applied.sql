-- Record a run of the rules of a tenant: the receipt, an administrative act with its counts; and with each rule of it, when
-- it began and its outcome.
CREATE FUNCTION retention_applied(tenant_id text, began_at timestamptz, actor text, receipt jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> retention_applied.tenant_id THEN
        PERFORM refuse_tenant(retention_applied.tenant_id);
    END IF;
    UPDATE retention_rules r
       SET applied_at = retention_applied.began_at,
           outcome    = o.outcome - 'rule'
      FROM jsonb_array_elements(retention_applied.receipt -> 'rules') AS o (outcome)
     WHERE r.tenant_id = retention_applied.tenant_id
       AND r.id = (o.outcome ->> 'rule')::uuid;
    PERFORM record_administrative_act(
        retention_applied.tenant_id, 'retention_run', retention_applied.receipt, actor => retention_applied.actor);
END
$$;

SELECT eventstore_set_owner('FUNCTION retention_applied');
REVOKE ALL ON FUNCTION retention_applied FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION retention_applied', 'eventstore_app');
