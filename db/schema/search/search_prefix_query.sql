-- The stems of words with a prefix in a language. A stem can be shorter than the typed prefix, so the prefix is
-- completed with the usual endings.
CREATE FUNCTION search_prefix_query(prefix text, language text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    found tsquery := (search_word_query(prefix)::text || ':*')::tsquery;
    word  text;
BEGIN
    FOR word IN
        SELECT DISTINCT s.lexeme
          FROM unnest(CASE language
                   WHEN 'pt' THEN ARRAY['', 'o', 'a', 'ao', 'm', 'em', 'r', 'ar', 'er', 'ir', 's', 'os', 'as', 'do', 'ado',
                                        'ndo', 'mente', 'ento', 'l', 'el', 'ia', 'ncia', 'cao', 'dade', 'e', 'es', 'vel']
                   WHEN 'en' THEN ARRAY['', 's', 'e', 'es', 'ed', 'd', 'ing', 'ng', 'ion', 'on', 'tion', 'ation', 'er', 'r', 'ly',
                                        'y', 'ment', 'ent', 'al', 'ies', 'ness', 'n', 't', 'able', 'ive', 'ity']
                   ELSE ARRAY['', 'a', 'e', 'o', 's', 'n', 'en', 'er', 'es']
               END) AS ending,
               LATERAL unnest(to_tsvector(search_config(language), search_prepare(prefix || ending, language))) AS s
         WHERE NOT starts_with(s.lexeme, prefix)
    LOOP
        found := found || search_word_query(word);
    END LOOP;
    RETURN found;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_prefix_query');
