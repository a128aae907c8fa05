-- Release a hold. Returns it; no row if the tenant has no such hold.
CREATE FUNCTION release_hold(tenant_id text, id uuid, reason text, actor text) RETURNS SETOF legal_holds
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    released legal_holds;
BEGIN
    IF append_tenant() <> release_hold.tenant_id THEN
        PERFORM refuse_tenant(release_hold.tenant_id);
    END IF;
    DELETE FROM legal_holds h
     WHERE h.tenant_id = release_hold.tenant_id
       AND h.id = release_hold.id
    RETURNING h.* INTO released;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM record_administrative_act(
        release_hold.tenant_id, 'hold_released',
        jsonb_strip_nulls(jsonb_build_object(
            'hold', released.id, 'conversation_id', released.conversation_id, 'user', released.user_id)),
        release_hold.reason, release_hold.actor);
    RETURN NEXT released;
END
$$;

SELECT eventstore_set_owner('FUNCTION release_hold');
REVOKE ALL ON FUNCTION release_hold FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION release_hold', 'eventstore_app');
