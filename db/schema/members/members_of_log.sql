-- The members according to the log: the owner whom the first event of a conversation names, and the users with whom it
-- was shared since.
CREATE FUNCTION members_of_log() RETURNS TABLE (tenant_id text, conversation_id uuid, user_id text, access text)
LANGUAGE sql STABLE SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH owners AS (
        SELECT e.tenant_id, e.conversation_id, e.metadata ->> 'eventstore.owner' AS user_id
          FROM events e
         WHERE e.version = 1
           AND e.metadata ? 'eventstore.owner'
    ),
    shared AS (
        SELECT DISTINCT ON (e.tenant_id, e.conversation_id, e.content ->> 'user')
               e.tenant_id, e.conversation_id, e.content ->> 'user' AS user_id, e.content ->> 'access' AS access,
               e.event_type
          FROM events e
         WHERE e.event_type IN ('conversation.shared', 'conversation.unshared')
           AND e.content ? 'user'  -- unless it was erased
         ORDER BY e.tenant_id, e.conversation_id, e.content ->> 'user', e.version DESC
    )
    SELECT o.tenant_id, o.conversation_id, o.user_id, 'own' FROM owners o
     UNION ALL
    SELECT s.tenant_id, s.conversation_id, s.user_id, s.access
      FROM shared s
     WHERE s.event_type = 'conversation.shared'
       AND NOT EXISTS (
               SELECT
                 FROM owners o
                WHERE o.tenant_id = s.tenant_id AND o.conversation_id = s.conversation_id AND o.user_id = s.user_id
           );
END;

SELECT eventstore_set_owner('FUNCTION members_of_log');
REVOKE ALL ON FUNCTION members_of_log FROM PUBLIC;
