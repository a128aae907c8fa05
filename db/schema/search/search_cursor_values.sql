-- The content of a cursor; an error if it is not a cursor of this search.
CREATE FUNCTION search_cursor_values(cursor text, search text) RETURNS json
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    members json;
BEGIN
    BEGIN
        members := convert_from(decode(cursor, 'base64'), 'UTF8')::json;
        PERFORM (members ->> 1)::bigint, (members ->> 4)::bigint,
                CASE left(search, 1) WHEN 't' THEN (members ->> 3)::timestamptz::text ELSE (members ->> 3)::real::text END;
    EXCEPTION
        WHEN OTHERS THEN
            members := NULL;
    END;
    IF members IS NULL
       OR json_array_length(members) <> 5
       OR (members ->> 0) IS DISTINCT FROM search
       OR (members ->> 1) IS NULL
       OR (members ->> 2) IS NULL
       OR (members ->> 3) IS NULL
       OR (members ->> 4) IS NULL THEN
        RAISE EXCEPTION 'the cursor does not belong to this search'
            USING ERRCODE = 'ES005', HINT = 'Use the cursor of the last row, with the same query and filters.';
    END IF;
    RETURN members;
END
$$;

SELECT eventstore_own('FUNCTION search_cursor_values');
