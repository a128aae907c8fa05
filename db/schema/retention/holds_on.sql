-- The holds on events of a conversation.
--
-- first_version: of the events. A hold on a fork covers what the fork shares with the conversations that it continues,
-- up to the versions that it shows of them; the log tells these, whatever the read tables have.
-- actors: who caused the events.
CREATE FUNCTION holds_on(tenant_id text, conversation_id uuid, first_version integer, actors text[])
RETURNS SETOF legal_holds
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH RECURSIVE covered AS (
        (SELECT h.id, h.conversation_id, 2147483647 AS last_version, ARRAY[h.conversation_id] AS path
           FROM legal_holds h
          WHERE h.tenant_id = holds_on.tenant_id
            AND h.conversation_id IS NOT NULL
          UNION ALL
         SELECT h.id, m.conversation_id, 2147483647, ARRAY[m.conversation_id]
           FROM legal_holds h
           JOIN conversation_members m
             ON m.tenant_id = h.tenant_id
            AND m.user_id = h.user_id
            AND m.access = 'own'
          WHERE h.tenant_id = holds_on.tenant_id)
         UNION ALL
        SELECT c.id, s.conversation_id, s.version, c.path || s.conversation_id
          FROM covered c
         CROSS JOIN LATERAL (
                   SELECT (e.content ->> 'source_conversation_id')::uuid AS conversation_id,
                          (e.content ->> 'source_version')::integer AS version
                     FROM events e
                    WHERE e.tenant_id = holds_on.tenant_id
                      AND e.conversation_id = c.conversation_id
                      AND e.version = 1
                      AND e.event_type = 'conversation.forked'
                   OFFSET 0
               ) AS s
         WHERE s.conversation_id <> ALL (c.path)
    )
    SELECT h.*
      FROM legal_holds h
     WHERE h.tenant_id = holds_on.tenant_id
       AND (h.conversation_id IS NULL AND h.user_id IS NULL
            OR h.user_id = ANY (holds_on.actors)
            OR EXISTS (SELECT
                         FROM covered c
                        WHERE c.id = h.id
                          AND c.conversation_id = holds_on.conversation_id
                          AND c.last_version >= holds_on.first_version))
     ORDER BY h.placed_at, h.id;
END;

SELECT eventstore_set_owner('FUNCTION holds_on');
REVOKE ALL ON FUNCTION holds_on FROM PUBLIC;
