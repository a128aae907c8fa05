-- Place a hold on a conversation, on a user, or on the whole tenant if both are null; see legal_holds. Erasures that are
-- in progress end before. Returns no row if the conversation does not exist. If the hold is there already, nothing changes.
CREATE FUNCTION place_hold(tenant_id text, id uuid, conversation_id uuid, user_id text, reason text, actor text)
RETURNS SETOF legal_holds
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF append_tenant() <> place_hold.tenant_id THEN
        PERFORM refuse_tenant(place_hold.tenant_id);
    END IF;
    PERFORM lock_holds(place_hold.tenant_id, false);
    IF place_hold.conversation_id IS NOT NULL AND NOT EXISTS (
           SELECT
             FROM events e
            WHERE e.tenant_id = place_hold.tenant_id
              AND e.conversation_id = place_hold.conversation_id) THEN
        RETURN;
    END IF;
    INSERT INTO legal_holds (tenant_id, id, conversation_id, user_id, reason, placed_by)
    VALUES (place_hold.tenant_id, place_hold.id, place_hold.conversation_id, place_hold.user_id,
            place_hold.reason, place_hold.actor)
        ON CONFLICT ON CONSTRAINT legal_holds_pkey DO NOTHING;
    RETURN QUERY
    SELECT h.* FROM legal_holds h WHERE h.tenant_id = place_hold.tenant_id AND h.id = place_hold.id;
END
$$;

SELECT eventstore_set_owner('FUNCTION place_hold');
REVOKE ALL ON FUNCTION place_hold FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION place_hold', 'eventstore_app');
