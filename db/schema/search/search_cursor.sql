-- The cursor of a row: the search to which it belongs, the query that was used, the row's place in the order, and, of
-- results by relevance, the period of the matches that are ranked. Opaque to clients.
CREATE FUNCTION search_cursor(
    search text, query text, key text, "position" bigint, oldest timestamptz, newest timestamptz, newest_position bigint
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN translate(encode(convert_to(json_build_array(search, query, key, "position", oldest, newest,
                                                    newest_position)::text, 'UTF8'), 'base64'), E'\n', '');

SELECT eventstore_set_owner('FUNCTION search_cursor');
