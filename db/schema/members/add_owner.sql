-- Make a user the owner of a conversation.
CREATE FUNCTION add_owner(tenant_id text, conversation_id uuid, user_id text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
    VALUES (tenant_id, conversation_id, user_id, 'own')
        ON CONFLICT ON CONSTRAINT conversation_members_pkey DO UPDATE SET access = 'own';
END
$$;

SELECT eventstore_set_owner('FUNCTION add_owner');
REVOKE ALL ON FUNCTION add_owner FROM PUBLIC;
