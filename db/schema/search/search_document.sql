-- The tsvector of the words of a text (search_words): the words as they are, with weight A, by which phrases are found;
-- their stems, with weight D; and the labels. It stays within the limit of a tsvector (1,048,575 bytes of words and
-- positions): a longer text is shortened by a quarter until it fits. Not parallel safe: a parallel query cannot enter the
-- exception block before PostgreSQL 17.
CREATE FUNCTION search_document(words text, language text, labels text[]) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    -- The control character 1E interrupts phrases: a word there, which is deleted, leaves its position free.
    fitting text := replace(words, E'\x1e', ' q00000 ');
BEGIN
    LOOP
        BEGIN
            RETURN ts_delete(setweight(to_tsvector('pg_catalog.simple'::regconfig, fitting), 'A'), 'q00000')
                || search_stems(fitting, language)
                || array_to_tsvector(labels);
        EXCEPTION
            WHEN program_limit_exceeded THEN
                fitting := left(fitting, length(fitting) * 3 / 4);
        END;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_document');
