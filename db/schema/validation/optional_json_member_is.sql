-- Return whether a member of a JSON object is absent or of a type.
CREATE FUNCTION optional_json_member_is(object jsonb, member text, type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = type, true);

SELECT eventstore_set_owner('FUNCTION optional_json_member_is');
