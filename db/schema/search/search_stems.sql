-- The stems of words in a language, as search_query makes them. If the language is unknown, those of both main ones,
-- and, in other scripts than Latin, of the script's main one.
CREATE FUNCTION search_stems(words text, language text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    -- What search_words has encoded has no stem.
    stemmed text := CASE WHEN position('q' IN words) = 0 THEN words
                         ELSE regexp_replace(words, '\mq[0-3][0-9a-f]{4,9}\M', ' ', 'g')
                    END;
    other   text;
BEGIN
    IF language = 'und' THEN
        other := search_script_language(stemmed);
        RETURN to_tsvector('pg_catalog.english'::regconfig, stemmed)
            || to_tsvector('pg_catalog.portuguese'::regconfig, search_prepare(stemmed, 'pt'))
            || CASE WHEN other IS NULL THEN ''::tsvector ELSE to_tsvector(search_config(other), stemmed) END;
    END IF;
    RETURN to_tsvector(search_config(language), search_prepare(stemmed, language));
END
$$;

SELECT eventstore_set_owner('FUNCTION search_stems');
