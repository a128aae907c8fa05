-- The content of a cursor; an error if it is not a cursor of this search.
CREATE FUNCTION search_cursor_values(cursor text, search text) RETURNS json
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    members json;
BEGIN
    BEGIN
        members := convert_from(decode(cursor, 'base64'), 'UTF8')::json;
        PERFORM (members ->> 3)::bigint,
                CASE left(search, 1) WHEN 't' THEN (members ->> 2)::timestamptz::text
                                     ELSE concat((members ->> 2)::real, (members ->> 4)::timestamptz,
                                                 (members ->> 5)::timestamptz, (members ->> 6)::bigint)
                END;
    EXCEPTION
        WHEN OTHERS THEN
            members := NULL;
    END;
    IF members IS NULL
       OR json_array_length(members) <> 7
       OR (members ->> 0) IS DISTINCT FROM search
       OR (members ->> 1) IS NULL
       OR (members ->> 2) IS NULL
       OR (members ->> 3) IS NULL
       OR left(search, 1) <> 't' AND num_nulls(members ->> 4, members ->> 5, members ->> 6) > 0 THEN
        RAISE EXCEPTION 'the cursor does not belong to this search'
            USING ERRCODE = 'ES005', HINT = 'Use the cursor of the last row, with the same query and filters.';
    END IF;
    RETURN members;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_cursor_values');
