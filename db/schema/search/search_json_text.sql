-- JSON as a readable string, such as the arguments of a tool call: "\u00e3" becomes a letter that can be found. Neither
-- this nor its callers are parallel safe: a parallel query cannot enter the exception block before PostgreSQL 17.
CREATE FUNCTION search_json_text(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF position('\' IN original) = 0 THEN
        RETURN original;
    END IF;
    RETURN original::jsonb::text;
EXCEPTION
    WHEN OTHERS THEN
        RETURN original;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_json_text');
