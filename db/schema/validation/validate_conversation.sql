-- Return what is invalid in the content of an event of a conversation; null if it is valid.
CREATE FUNCTION validate_conversation(tenant_id text, conversation_id uuid, event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN event_type = 'conversation.created' AND NOT optional_json_member_is(content, 'given_id', 'string')
        THEN 'given_id is not a string'
    -- One that belongs to another conversation would lead readers there.
    WHEN event_type = 'conversation.created' AND conversation_uuid(tenant_id, content ->> 'given_id') <> conversation_id
        THEN 'given_id is the name of another conversation'
    WHEN event_type IN ('conversation.created', 'conversation.forked') AND NOT optional_json_member_is(content, 'metadata', 'object')
        THEN 'metadata is not an object'
    WHEN (event_type = 'conversation.renamed'
          OR event_type IN ('conversation.created', 'conversation.forked') AND content ? 'name') AND NOT json_member_is_text(content, 'name', 255)
        THEN 'name is not a string of at most 255 characters'
    WHEN event_type = 'conversation.forked' AND NOT (
             json_member_is_uuid(content, 'source_conversation_id')
             AND coalesce(jsonb_typeof(content -> 'source_version') = 'number', false))
        THEN 'source_conversation_id is not a UUID, or source_version is not a number'
    WHEN event_type = 'conversation.rewound' AND NOT coalesce(content ->> 'to_version' ~ '^[0-9]{1,9}$', false)
        THEN 'to_version is not a number from 0 to 999,999,999'
END;

SELECT eventstore_set_owner('FUNCTION validate_conversation');
