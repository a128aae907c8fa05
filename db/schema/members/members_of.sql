-- The users who may see a conversation, for callers who may see it themselves.
CREATE FUNCTION members_of(conversation uuid) RETURNS TABLE (user_id text, access text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT m.user_id, m.access
      FROM conversation_members m
     WHERE m.tenant_id = (SELECT current_tenant())
       AND m.conversation_id = members_of.conversation
       AND ((SELECT current_tenant_user()) IS NULL
            OR EXISTS (
                   SELECT
                     FROM conversation_members own
                    WHERE own.tenant_id = (SELECT current_tenant())
                      AND own.conversation_id = members_of.conversation
                      AND own.user_id = (SELECT current_tenant_user())
               ))
     ORDER BY m.access = 'own' DESC, m.user_id;
END;

SELECT eventstore_set_owner('FUNCTION members_of');
REVOKE ALL ON FUNCTION members_of FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION members_of', 'eventstore_eraser', 'eventstore_reader');
