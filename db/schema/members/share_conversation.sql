-- Apply an event conversation.shared or conversation.unshared. The owner stays the owner.
CREATE FUNCTION share_conversation(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
BEGIN
    IF event_type = 'conversation.shared' THEN
        INSERT INTO conversation_members AS m (tenant_id, conversation_id, user_id, access)
        VALUES (tenant_id, conversation_id, content ->> 'user', content ->> 'access')
            ON CONFLICT ON CONSTRAINT conversation_members_pkey
            DO UPDATE SET access = excluded.access WHERE m.access <> 'own';
    ELSE
        DELETE FROM conversation_members m
         WHERE m.tenant_id = share_conversation.tenant_id
           AND m.conversation_id = share_conversation.conversation_id
           AND m.user_id = content ->> 'user'
           AND m.access <> 'own';
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION share_conversation');
REVOKE ALL ON FUNCTION share_conversation FROM PUBLIC;
