-- JSON as a readable string, such as the arguments of a tool call: "\u00e3" becomes a letter that can be found. Neither
-- this nor its callers are parallel safe: a parallel query cannot enter the exception block before PostgreSQL 17.
CREATE FUNCTION search_json_text(given text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF position('\' IN given) = 0 THEN
        RETURN given;
    END IF;
    RETURN given::jsonb::text;
EXCEPTION
    WHEN OTHERS THEN
        RETURN given;
END
$$;

SELECT eventstore_own('FUNCTION search_json_text');
