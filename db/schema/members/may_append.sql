-- Whether somebody may append such an event to a conversation that exists.
CREATE FUNCTION may_append(tenant_id text, conversation_id uuid, user_id text, event_type text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (
        SELECT
          FROM conversation_members m
         WHERE m.tenant_id = may_append.tenant_id
           AND m.conversation_id = may_append.conversation_id
           AND m.user_id = may_append.user_id
           AND (m.access = 'own'
                OR m.access = 'write'
                   AND may_append.event_type NOT IN ('conversation.shared', 'conversation.unshared', 'conversation.deleted'))
    );
END
$$;

SELECT eventstore_own('FUNCTION may_append');
REVOKE ALL ON FUNCTION may_append FROM PUBLIC;
