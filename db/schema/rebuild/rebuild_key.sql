-- Of two that make, fill or swap the same tables one must wait; a lock of the session's, so that it ends with it.
CREATE FUNCTION rebuild_key(projection text) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT
RETURN ('projection_texts'::regclass::oid::bigint << 32) | (hashtext(projection)::bigint & 4294967295);

SELECT eventstore_own('FUNCTION rebuild_key');
