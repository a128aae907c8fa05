-- One unit of a query in the words of a language; empty if it consists of stop words.
CREATE FUNCTION search_unit(said text, prefix boolean, language text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    last_word text;
    before    tsquery;
BEGIN
    IF NOT prefix THEN
        RETURN phraseto_tsquery(search_config(language), search_prepare(said, language));
    END IF;
    last_word := left(substring(said FROM '[^\W_]+(?=\W*$)'), 100);
    before := phraseto_tsquery(search_config(language), search_prepare(substring(said FROM '^(.*?)[^\W_]+\W*$'), language));
    RETURN before && search_prefix(last_word, language);
END
$$;

SELECT eventstore_own('FUNCTION search_unit');
