-- Record a run of the rules of a tenant: the receipt, an administrative act with its counts; and with each rule of it, when
-- it began and its outcome.
CREATE FUNCTION record_retention_run(tenant_id text, began_at timestamptz, actor text, receipt jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> record_retention_run.tenant_id THEN
        PERFORM refuse_tenant(record_retention_run.tenant_id);
    END IF;
    UPDATE retention_rules r
       SET applied_at = record_retention_run.began_at,
           outcome    = o.outcome - 'rule'
      FROM jsonb_array_elements(record_retention_run.receipt -> 'rules') AS o (outcome)
     WHERE r.tenant_id = record_retention_run.tenant_id
       AND r.id = (o.outcome ->> 'rule')::uuid;
    PERFORM record_administrative_act(
        record_retention_run.tenant_id, 'retention_run', record_retention_run.receipt,
        actor => record_retention_run.actor);
END
$$;

SELECT eventstore_set_owner('FUNCTION record_retention_run');
REVOKE ALL ON FUNCTION record_retention_run FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION record_retention_run', 'eventstore_app');
