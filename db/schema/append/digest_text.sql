-- The bytes of a text in a digest: its length in bytes, four bytes big-endian, then the text in UTF-8.
CREATE FUNCTION digest_text(value text) RETURNS bytea
LANGUAGE sql STABLE STRICT PARALLEL SAFE
RETURN int4send(octet_length(value)) || convert_to(value, 'UTF8');

SELECT eventstore_set_owner('FUNCTION digest_text');
