-- A text as it goes into a digest: its length in bytes, four bytes big-endian, then its bytes in UTF-8. The database is
-- in UTF-8, so these are the bytes it is stored in; without convert_to, which is only STABLE, planners can inline it.
CREATE FUNCTION digest_text(value text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN int4send(octet_length(value)) || decode(replace(value, '\', '\\'), 'escape');

SELECT eventstore_own('FUNCTION digest_text');
