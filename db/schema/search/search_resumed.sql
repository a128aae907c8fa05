-- The content of a cursor; an error if it is not a cursor of this search.
CREATE FUNCTION search_resumed(cursor text, search text) RETURNS json
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    told json;
BEGIN
    BEGIN
        told := convert_from(decode(cursor, 'base64'), 'UTF8')::json;
        PERFORM (told ->> 1)::bigint, (told ->> 4)::bigint,
                CASE left(search, 1) WHEN 't' THEN (told ->> 3)::timestamptz::text ELSE (told ->> 3)::real::text END;
    EXCEPTION
        WHEN OTHERS THEN
            told := NULL;
    END;
    IF told IS NULL OR json_array_length(told) <> 5 OR (told ->> 0) IS DISTINCT FROM search OR (told ->> 4) IS NULL
       OR (told ->> 3) IS NULL OR (told ->> 2) IS NULL OR (told ->> 1) IS NULL THEN
        RAISE EXCEPTION 'the cursor does not belong to this search'
            USING ERRCODE = 'ES005', HINT = 'Use the cursor of the last row, with the same query and filters.';
    END IF;
    RETURN told;
END
$$;

SELECT eventstore_own('FUNCTION search_resumed');
