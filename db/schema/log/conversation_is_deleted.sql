-- Whether a conversation is deleted. The append functions call it under the lock of the conversation, so that no writer
-- overlooks a deletion that was committed before.
CREATE FUNCTION conversation_is_deleted(tenant_id text, conversation_id uuid) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT e.event_type = 'conversation.deleted'
          FROM events e
         WHERE e.tenant_id = conversation_is_deleted.tenant_id
           AND e.conversation_id = conversation_is_deleted.conversation_id
           AND e.event_type IN ('conversation.deleted', 'conversation.reactivated')
         ORDER BY e.version DESC
         LIMIT 1
    ), false);
END
$$;

SELECT eventstore_set_owner('FUNCTION conversation_is_deleted');
REVOKE ALL ON FUNCTION conversation_is_deleted FROM PUBLIC;
