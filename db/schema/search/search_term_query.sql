-- Return one term of a query in the stems of a language; empty if it consists of stop words or of words without a
-- stem. In the language "exact", the words as they are.
CREATE FUNCTION search_term_query(words text, prefix boolean, quoted boolean, language text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    last_word text;
    before    tsquery;
BEGIN
    IF language = 'exact' OR quoted OR words ~ '\mq[0-3][0-9a-f]{4}' THEN
        RETURN search_exact_query(words, prefix);
    END IF;
    IF NOT prefix THEN
        RETURN phraseto_tsquery(search_config(language), search_prepare(words, language));
    END IF;
    last_word := left(substring(words FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)'), 100);
    before := phraseto_tsquery(search_config(language),
                               search_prepare(substring(words FROM '^(.*?)[^\s[:punct:]]+[\s[:punct:]]*$'), language));
    RETURN before && search_prefix_query(last_word, language);
END
$$;

SELECT eventstore_set_owner('FUNCTION search_term_query');
