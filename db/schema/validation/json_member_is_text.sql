-- Return whether a member of a JSON object is a string of at most so many characters.
CREATE FUNCTION json_member_is_text(object jsonb, member text, longest integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = 'string' AND char_length(object ->> member) <= longest, false);

SELECT eventstore_set_owner('FUNCTION json_member_is_text');
