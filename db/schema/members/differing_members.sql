-- The members of all tenants that differ from those of the log; null if one of the two does not have the user.
CREATE FUNCTION differing_members() RETURNS TABLE (tenant_id text, conversation_id uuid, user_id text, expected text, found text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT coalesce(l.tenant_id, m.tenant_id), coalesce(l.conversation_id, m.conversation_id),
           coalesce(l.user_id, m.user_id), l.access, m.access
      FROM members_of_log() AS l
      FULL JOIN conversation_members m
        ON m.tenant_id = l.tenant_id
       AND m.conversation_id = l.conversation_id
       AND m.user_id = l.user_id
     WHERE m.access IS DISTINCT FROM l.access;
END;

SELECT eventstore_set_owner('FUNCTION differing_members');
REVOKE ALL ON FUNCTION differing_members FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION differing_members', 'eventstore_projector');
