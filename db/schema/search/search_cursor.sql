-- The cursor of a row: its place in the order, and the search to which it belongs. Opaque to clients.
CREATE FUNCTION search_cursor(search text, up_to bigint, query text, key text, "position" bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN translate(encode(convert_to(json_build_array(search, up_to, query, key, "position")::text, 'UTF8'), 'base64'), E'\n', '');

SELECT eventstore_own('FUNCTION search_cursor');
