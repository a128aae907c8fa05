-- Return what is invalid in the content of an event of a task; null if it is valid.
CREATE FUNCTION validate_task(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN event_type = 'task.created' AND NOT optional_json_member_is(content, 'given_id', 'string')
        THEN 'given_id is not a string'
    WHEN event_type NOT IN ('task.status_changed', 'task.described')
         AND NOT optional_json_member_is(content, 'metadata', 'object')
        THEN 'metadata is not an object'
    WHEN event_type <> 'task.status_changed' AND NOT optional_json_member_is(content, 'extra', 'object')
        THEN 'extra is not an object'
    WHEN event_type = 'task.described' AND NOT optional_json_member_is(content, 'history', 'array')
        THEN 'history is not an array'
    WHEN NOT json_member_is_uuid(content, 'task_id')
        THEN 'task_id is not a UUID in lower case'
    WHEN event_type IN ('task.created', 'task.status_changed') AND NOT (
             json_member_is_text(content, 'status', 50) AND content ->> 'status' <> ''
             AND (event_type <> 'task.status_changed' OR optional_json_member_is(content, 'message', 'object')))
        THEN 'status is not a string of 1 to 50 characters, or message is not an object'
    WHEN event_type IN ('task.created', 'task.described') AND NOT coalesce(
             jsonb_typeof(content -> 'description') = 'string', event_type = 'task.described')
        THEN 'description is not a string'
    WHEN event_type IN ('task.artifact_added', 'task.artifact_extended') AND NOT coalesce(
             jsonb_typeof(content -> 'artifact_id') = 'string' AND jsonb_typeof(content -> 'parts') = 'array'
             AND jsonb_typeof(content -> 'last_chunk') = 'boolean'
             AND optional_json_member_is(content, 'name', 'string')
             AND optional_json_member_is(content, 'description', 'string'), false)
        THEN 'artifact_id, name or description is not a string, parts is not an array, or last_chunk is not a boolean'
END;

SELECT eventstore_set_owner('FUNCTION validate_task');
