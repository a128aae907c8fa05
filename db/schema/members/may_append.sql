-- A row if a user may append an event of a type to a conversation that exists, and none otherwise.
--
-- It returns a set so that the planner inlines it where it is called: a function call for each event would be slower.
CREATE FUNCTION may_append(tenant_id text, conversation_id uuid, user_id text, event_type text)
RETURNS TABLE (access text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT m.access
      FROM conversation_members m
     WHERE m.tenant_id = may_append.tenant_id
       AND m.conversation_id = may_append.conversation_id
       AND m.user_id = may_append.user_id
       AND (m.access = 'own'
            OR m.access = 'write'
               AND may_append.event_type NOT IN ('conversation.shared', 'conversation.unshared', 'conversation.deleted',
                                                 'conversation.rewound'));
END;

SELECT eventstore_set_owner('FUNCTION may_append');
REVOKE ALL ON FUNCTION may_append FROM PUBLIC;
