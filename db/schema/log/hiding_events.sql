-- The events that hide an event of a conversation: each return to a version below its own, and a deletion after it that
-- was not taken back. It returns a set so that the planner replaces a call by the query.
CREATE FUNCTION hiding_events(tenant_id text, conversation_id uuid, version integer)
RETURNS TABLE (event_type text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT h.event_type::text
      FROM events h
     WHERE h.tenant_id = hiding_events.tenant_id
       AND h.conversation_id = hiding_events.conversation_id
       AND h.version > hiding_events.version
       AND (h.event_type = 'conversation.rewound'
            AND (h.content ->> 'to_version')::integer < hiding_events.version
            OR h.event_type = 'conversation.deleted'
               AND NOT EXISTS (
                       SELECT
                         FROM events r
                        WHERE r.tenant_id = hiding_events.tenant_id
                          AND r.conversation_id = hiding_events.conversation_id
                          AND r.version > h.version
                          AND r.event_type = 'conversation.reactivated'
                   ));
END;

SELECT eventstore_set_owner('FUNCTION hiding_events');
REVOKE ALL ON FUNCTION hiding_events FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION hiding_events', 'eventstore_auditor');
