-- One term of a query in the words of a language; empty if it consists of stop words.
CREATE FUNCTION search_term_query(words text, prefix boolean, language text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    last_word text;
    before    tsquery;
BEGIN
    IF NOT prefix THEN
        RETURN phraseto_tsquery(search_config(language), search_prepare(words, language));
    END IF;
    last_word := left(substring(words FROM '[^\W_]+(?=\W*$)'), 100);
    before := phraseto_tsquery(search_config(language), search_prepare(substring(words FROM '^(.*?)[^\W_]+\W*$'), language));
    RETURN before && search_prefix_query(last_word, language);
END
$$;

SELECT eventstore_own('FUNCTION search_term_query');
