-- The bytes of a text in a digest: its length in bytes, four bytes big-endian, then the text in UTF-8. The database is
-- in UTF-8, so these are the stored bytes; without convert_to, which is only STABLE, the planner can inline this.
CREATE FUNCTION digest_text(value text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN int4send(octet_length(value)) || decode(replace(value, '\', '\\'), 'escape');

SELECT eventstore_set_owner('FUNCTION digest_text');
