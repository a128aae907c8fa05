-- What one page of a search left for the next: where it ended, and for which search. Text that only this understands.
CREATE FUNCTION search_cursor(search text, up_to bigint, query text, key text, "position" bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN translate(encode(convert_to(json_build_array(search, up_to, query, key, "position")::text, 'UTF8'), 'base64'), E'\n', '');

SELECT eventstore_own('FUNCTION search_cursor');
