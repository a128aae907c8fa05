-- The key of the advisory lock under which the tables of a projection are created, filled and swapped. A session lock,
-- so that it ends with the session.
CREATE FUNCTION rebuild_key(projection text) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN ('projection_definitions'::regclass::oid::bigint << 32) | (hashtext(projection)::bigint & 4294967295);

SELECT eventstore_set_owner('FUNCTION rebuild_key');
