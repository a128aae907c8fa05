-- The stems of a folded text. A text of unknown language has those of the two main languages, and its words as they
-- are; search_query does the same.
CREATE FUNCTION search_stems(folded text, language text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF language = 'und' THEN
        RETURN to_tsvector('pg_catalog.simple'::regconfig, folded)
            || to_tsvector('pg_catalog.english'::regconfig, folded)
            || to_tsvector('pg_catalog.portuguese'::regconfig, search_prepare(folded, 'pt'));
    END IF;
    RETURN to_tsvector(search_config(language), search_prepare(folded, language));
END
$$;

SELECT eventstore_own('FUNCTION search_stems');
