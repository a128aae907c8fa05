-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- A deleted conversation takes no further events until it is reactivated. The append functions enforce it under the
-- conversation's lock, so that no writer can overlook a deletion that was committed before.
--
-- Three types of event are accepted all the same:
--
-- - conversation.reactivated, which ends the deletion;
-- - message.answered, which ends the wait for an answer that was under way: it adds nothing that anybody would read;
-- - conversation.unshared: who owns a conversation can withdraw access without showing it to everybody again.
--   conversation.shared is refused: nobody is given access to what is hidden.
--
-- An event that is stored already is reported as such, so that repeating an append stays harmless after a deletion.

-- Finds the latest of them at once, however long the conversation is. Few events stand in it, so it is small.
CREATE INDEX idx_events_deletions ON events (tenant_id, conversation_id, version)
 WHERE event_type IN ('conversation.deleted', 'conversation.reactivated');

-- Whether a conversation is deleted now.
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

-- Whether a deleted conversation accepts events of a type.
CREATE FUNCTION accepted_when_deleted(event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN event_type IN ('conversation.reactivated', 'conversation.unshared', 'message.answered');

SELECT eventstore_own('FUNCTION conversation_is_deleted(text, uuid)');
SELECT eventstore_own('FUNCTION accepted_when_deleted(text)');
REVOKE ALL ON FUNCTION conversation_is_deleted(text, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION accepted_when_deleted(text) FROM PUBLIC;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION accepted_when_deleted(text);
DROP FUNCTION conversation_is_deleted(text, uuid);
DROP INDEX idx_events_deletions;
