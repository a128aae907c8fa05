-- Return whether a member of a JSON object is a UUID as PostgreSQL prints one.
CREATE FUNCTION json_member_is_uuid(object jsonb, member text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(object ->> member ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$', false);

SELECT eventstore_set_owner('FUNCTION json_member_is_uuid');
