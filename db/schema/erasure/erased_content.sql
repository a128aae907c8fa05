-- The content of an event once it is erased: what the structure of its conversation needs and nothing that anybody wrote.
-- It keeps ids that are UUIDs, numbers, truth values, and the known roles, statuses and outcomes. Members that replace
-- earlier values stay, empty, so that no earlier value shows again. A receipt of an erasure keeps what it names. Messages,
-- tasks and conversations are marked by the member "eventstore.erased" of their metadata. Nothing stays
-- of types that are not built in.
--
-- erases_members: whether the user with whom a conversation was shared is erased, too.
--
-- Erasing the result changes nothing.
CREATE FUNCTION erased_content(event_type text, content jsonb, erases_members boolean) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    mark constant jsonb := '{"metadata": {"eventstore.erased": true}}';
    kept jsonb;
BEGIN
    IF jsonb_typeof(content) IS DISTINCT FROM 'object' THEN
        RETURN '{}';
    END IF;
    kept := (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
               FROM jsonb_each(content) AS m
              WHERE m.key IN ('message_id', 'task_id', 'source_conversation_id', 'artifact_id', 'config_id')
                    AND json_member_is_uuid(content, m.key)
                 OR m.key = 'source_version' AND jsonb_typeof(m.value) = 'number'
                 OR m.key IN ('awaits_answer', 'last_chunk') AND jsonb_typeof(m.value) = 'boolean'
                 OR m.key = 'role' AND m.value IN ('"user"', '"assistant"', '"system"', '"tool"')
                 OR m.key = 'status' AND m.value IN ('"pending"', '"in_progress"', '"completed"', '"input-required"',
                                                     '"auth-required"', '"canceled"', '"failed"', '"rejected"')
                 OR m.key = 'outcome' AND m.value IN ('"answered"', '"failed"', '"abandoned"')
                 OR m.key = 'access' AND m.value IN ('"read"', '"write"')
                 OR m.key = 'user' AND NOT erases_members);
    CASE event_type
        WHEN 'message.added' THEN
            RETURN '{"role": "system"}' || (kept - '{user, access}'::text[])
                   || CASE WHEN content ? 'parts' THEN '{"parts": []}'::jsonb ELSE '{"content": ""}' END || mark;
        WHEN 'message.answered' THEN
            RETURN kept - 'user';
        WHEN 'task.created' THEN
            RETURN '{"status": "unknown", "description": ""}' || (kept - 'user') || mark;
        WHEN 'task.status_changed' THEN
            RETURN '{"status": "unknown"}' || (kept - 'user');
        WHEN 'task.described' THEN
            RETURN (kept - 'user')
                   || CASE WHEN content ? 'description' THEN '{"description": ""}'::jsonb ELSE '{}' END
                   || CASE WHEN content ? 'extra' THEN '{"extra": {}}'::jsonb ELSE '{}' END
                   || CASE WHEN content ? 'metadata' THEN mark ELSE '{}' END;
        WHEN 'task.artifact_added', 'task.artifact_extended' THEN
            RETURN '{"artifact_id": "erased", "parts": [], "last_chunk": true}' || (kept - 'user') || mark;
        WHEN 'task.cancel_requested', 'task.deleted' THEN
            RETURN kept - 'user';
        WHEN 'task.push_notification_set' THEN
            RETURN '{"config_id": "erased", "config": {}}' || (kept - 'user');
        WHEN 'task.push_notification_deleted' THEN
            RETURN '{"config_id": "erased"}' || (kept - 'user');
        WHEN 'conversation.created', 'conversation.forked' THEN
            RETURN (kept - 'user') || CASE WHEN content ? 'name' THEN '{"name": ""}'::jsonb ELSE '{}' END || mark;
        WHEN 'conversation.renamed' THEN
            RETURN '{"name": ""}';
        WHEN 'conversation.rewound' THEN
            RETURN (SELECT coalesce(jsonb_object_agg(m.key, m.value), '{}')
                      FROM jsonb_each(content) AS m
                     WHERE m.key IN ('to_version', 'message_count')
                       AND jsonb_typeof(m.value) = 'number');
        WHEN 'conversation.erased', 'event.erased' THEN
            RETURN content - 'reason';
        WHEN 'conversation.shared', 'conversation.unshared' THEN
            RETURN kept;
        ELSE
            RETURN '{}';
    END CASE;
END
$$;

SELECT eventstore_set_owner('FUNCTION erased_content');
