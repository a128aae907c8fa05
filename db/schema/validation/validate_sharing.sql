-- Return what is invalid in the content of an event that shares or unshares a conversation; null if it is valid.
CREATE FUNCTION validate_sharing(event_type text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(content) IS DISTINCT FROM 'object'
        THEN 'its content is not an object'
    WHEN NOT (json_member_is_text(content, 'user', 255) AND content ->> 'user' <> '')
        THEN 'user is not a string of 1 to 255 characters'
    WHEN event_type = 'conversation.shared' AND NOT coalesce(content -> 'access' IN ('"read"', '"write"'), false)
        THEN 'access is neither read nor write'
END;

SELECT eventstore_set_owner('FUNCTION validate_sharing');
REVOKE ALL ON FUNCTION validate_sharing FROM PUBLIC;
