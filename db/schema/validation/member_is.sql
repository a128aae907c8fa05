-- Whether a member of a JSON object is absent or of a type.
CREATE FUNCTION member_is(object jsonb, member text, type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(jsonb_typeof(object -> member) = type, true);

SELECT eventstore_own('FUNCTION member_is');
