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
    -- An expression without a query, which plpgsql evaluates in less time.
    kept := jsonb_strip_nulls(jsonb_build_object(
        'message_id', CASE WHEN json_member_is_uuid(content, 'message_id') THEN content -> 'message_id' END,
        'task_id', CASE WHEN json_member_is_uuid(content, 'task_id') THEN content -> 'task_id' END,
        'source_conversation_id',
        CASE WHEN json_member_is_uuid(content, 'source_conversation_id') THEN content -> 'source_conversation_id' END,
        'artifact_id', CASE WHEN json_member_is_uuid(content, 'artifact_id') THEN content -> 'artifact_id' END,
        'config_id', CASE WHEN json_member_is_uuid(content, 'config_id') THEN content -> 'config_id' END,
        'source_version',
        CASE WHEN jsonb_typeof(content -> 'source_version') = 'number' THEN content -> 'source_version' END,
        'awaits_answer', CASE WHEN jsonb_typeof(content -> 'awaits_answer') = 'boolean' THEN content -> 'awaits_answer' END,
        'last_chunk', CASE WHEN jsonb_typeof(content -> 'last_chunk') = 'boolean' THEN content -> 'last_chunk' END,
        'role', CASE WHEN content -> 'role' IN ('"user"', '"assistant"', '"system"', '"tool"') THEN content -> 'role' END,
        'status', CASE WHEN content -> 'status' IN ('"pending"', '"in_progress"', '"completed"', '"input-required"',
                                                    '"auth-required"', '"canceled"', '"failed"', '"rejected"')
                       THEN content -> 'status' END,
        'outcome', CASE WHEN content -> 'outcome' IN ('"answered"', '"failed"', '"abandoned"')
                        THEN content -> 'outcome' END
    ));
    CASE event_type
        WHEN 'message.added' THEN
            RETURN '{"role": "system"}' || kept
                   || CASE WHEN content ? 'parts' THEN '{"parts": []}'::jsonb ELSE '{"content": ""}' END || mark;
        WHEN 'message.answered' THEN
            RETURN kept;
        WHEN 'task.created' THEN
            RETURN '{"status": "unknown", "description": ""}' || kept || mark;
        WHEN 'task.status_changed' THEN
            RETURN '{"status": "unknown"}' || kept;
        WHEN 'task.described' THEN
            RETURN kept
                   || CASE WHEN content ? 'description' THEN '{"description": ""}'::jsonb ELSE '{}' END
                   || CASE WHEN content ? 'extra' THEN '{"extra": {}}'::jsonb ELSE '{}' END
                   || CASE WHEN content ? 'metadata' THEN mark ELSE '{}' END;
        WHEN 'task.artifact_added', 'task.artifact_extended' THEN
            RETURN '{"artifact_id": "erased", "parts": [], "last_chunk": true}' || kept || mark;
        WHEN 'task.cancel_requested', 'task.deleted' THEN
            RETURN kept;
        WHEN 'task.push_notification_set' THEN
            RETURN '{"config_id": "erased", "config": {}}' || kept;
        WHEN 'task.push_notification_deleted' THEN
            RETURN '{"config_id": "erased"}' || kept;
        WHEN 'conversation.created', 'conversation.forked' THEN
            RETURN kept || CASE WHEN content ? 'name' THEN '{"name": ""}'::jsonb ELSE '{}' END || mark;
        WHEN 'conversation.renamed' THEN
            RETURN '{"name": ""}';
        WHEN 'conversation.rewound' THEN
            RETURN CASE WHEN jsonb_typeof(content -> 'to_version') = 'number'
                        THEN jsonb_build_object('to_version', content -> 'to_version') ELSE '{}' END;
        WHEN 'conversation.erased', 'event.erased' THEN
            RETURN content - 'reason';
        WHEN 'conversation.shared', 'conversation.unshared' THEN
            RETURN kept
                   || CASE WHEN content ? 'user' AND NOT erases_members
                           THEN jsonb_build_object('user', content -> 'user') ELSE '{}' END
                   || CASE WHEN content -> 'access' IN ('"read"', '"write"')
                           THEN jsonb_build_object('access', content -> 'access') ELSE '{}' END;
        ELSE
            RETURN '{}';
    END CASE;
END
$$;

SELECT eventstore_set_owner('FUNCTION erased_content');
