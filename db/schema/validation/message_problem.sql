-- What is wrong with the content of a message; null if nothing is.
CREATE FUNCTION message_problem(content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is no object'
    WHEN NOT member_is(content, 'given_id', 'string')
        THEN 'given_id is no text'
    WHEN NOT member_is(content, 'metadata', 'object')
        THEN 'metadata is no object'
    WHEN NOT member_is(content, 'extra', 'object')
        THEN 'extra is no object'
    WHEN NOT (member_is_text(content, 'role', 50) AND content ->> 'role' <> ''
              AND member_is(content, 'content', 'string') AND member_is(content, 'parts', 'array'))
        THEN 'role is no text of 1 to 50 characters, content no text, or parts no array'
END;

SELECT eventstore_own('FUNCTION message_problem');
