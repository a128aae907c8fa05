-- The tsvector of a folded text: its stems and the labels, within the limit of a tsvector (1,048,575 bytes of words and
-- positions). Three readings of 100,000 bytes always fit: a word with its separator takes at most 2.5 times its bytes,
-- positions included. A longer text is shortened by a quarter until it fits. Not parallel safe: a parallel query cannot
-- enter the exception block before PostgreSQL 17.
CREATE FUNCTION search_document(folded text, language text, labels text[]) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    fitting text := folded;
BEGIN
    WHILE octet_length(fitting) > 100000 LOOP
        BEGIN
            RETURN search_stems(fitting, language) || array_to_tsvector(labels);
        EXCEPTION
            WHEN program_limit_exceeded THEN
                fitting := left(fitting, length(fitting) * 3 / 4);
        END;
    END LOOP;
    RETURN search_stems(fitting, language) || array_to_tsvector(labels);
END
$$;

SELECT eventstore_own('FUNCTION search_document');
