-- Return what is invalid in the content of a message; null if it is valid.
CREATE FUNCTION validate_message(content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN NOT optional_json_member_is(content, 'given_id', 'string')
        THEN 'given_id is not a string'
    WHEN NOT optional_json_member_is(content, 'metadata', 'object')
        THEN 'metadata is not an object'
    WHEN NOT optional_json_member_is(content, 'extra', 'object')
        THEN 'extra is not an object'
    WHEN NOT (json_member_is_text(content, 'role', 50) AND content ->> 'role' <> ''
              AND optional_json_member_is(content, 'content', 'string')
              AND optional_json_member_is(content, 'parts', 'array'))
        THEN 'role is not a string of 1 to 50 characters, content is not a string, or parts is not an array'
END;

SELECT eventstore_set_owner('FUNCTION validate_message');
