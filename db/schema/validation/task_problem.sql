-- What is wrong with the content of an event of a task; null if nothing is.
CREATE FUNCTION task_problem(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is no object'
    WHEN event_type = 'task.created' AND NOT member_is(content, 'given_id', 'string')
        THEN 'given_id is no text'
    WHEN event_type NOT IN ('task.status_changed', 'task.described') AND NOT member_is(content, 'metadata', 'object')
        THEN 'metadata is no object'
    WHEN event_type <> 'task.status_changed' AND NOT member_is(content, 'extra', 'object')
        THEN 'extra is no object'
    WHEN event_type = 'task.described' AND NOT member_is(content, 'history', 'array')
        THEN 'history is no array'
    WHEN NOT member_is_uuid(content, 'task_id')
        THEN 'task_id is no UUID in lower case'
    WHEN event_type IN ('task.created', 'task.status_changed') AND NOT (
             member_is_text(content, 'status', 50) AND content ->> 'status' <> ''
             AND (event_type <> 'task.status_changed' OR member_is(content, 'message', 'object')))
        THEN 'status is no text of 1 to 50 characters, or message no object'
    WHEN event_type IN ('task.created', 'task.described') AND NOT coalesce(
             jsonb_typeof(content -> 'description') = 'string', event_type = 'task.described')
        THEN 'description is no text'
    WHEN event_type IN ('task.artifact_added', 'task.artifact_extended') AND NOT coalesce(
             jsonb_typeof(content -> 'artifact_id') = 'string' AND jsonb_typeof(content -> 'parts') = 'array'
             AND jsonb_typeof(content -> 'last_chunk') = 'boolean'
             AND member_is(content, 'name', 'string') AND member_is(content, 'description', 'string'), false)
        THEN 'artifact_id, name or description is no text, parts no array, or last_chunk no boolean'
END;

SELECT eventstore_own('FUNCTION task_problem');
