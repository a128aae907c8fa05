-- Release a hold. Returns it; no row if the tenant has no such hold.
CREATE FUNCTION release_hold(tenant_id text, id uuid, reason text, actor text) RETURNS SETOF legal_holds
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> release_hold.tenant_id THEN
        PERFORM refuse_tenant(release_hold.tenant_id);
    END IF;
    -- The trigger records them with the act (record_retention_change).
    PERFORM set_config('eventstore.reason', release_hold.reason, true) WHERE release_hold.reason <> '';
    PERFORM set_config('eventstore.actor', release_hold.actor, true) WHERE release_hold.actor <> '';
    RETURN QUERY
    DELETE FROM legal_holds h
     WHERE h.tenant_id = release_hold.tenant_id
       AND h.id = release_hold.id
    RETURNING h.*;
END
$$;

SELECT eventstore_set_owner('FUNCTION release_hold');
REVOKE ALL ON FUNCTION release_hold FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION release_hold', 'eventstore_app');
