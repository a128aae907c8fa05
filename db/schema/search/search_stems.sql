-- The stems of a folded text. Of a text whose language is not known, those of the two main languages and the words
-- as they are. Everything is looked up again in the same way, see search_query.
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
