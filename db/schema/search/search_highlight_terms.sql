-- The terms of a query to highlight in texts of a language. The first character of each is its kind:
--
--   =  a word, as it is or as a stem          *  the beginning of a word
--   "  adjacent words, separated by spaces    ~  characters, wherever they are
CREATE FUNCTION search_highlight_terms(query text, language text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    term  record;
    marks text[] := '{}';
BEGIN
    FOR term IN
        SELECT t.prefix, t.quoted, t.original, t.words, search_expand(search_fold(t.original)) AS folded
          FROM search_parse_query(query) AS t
         WHERE NOT t.negated
    LOOP
        IF term.words ~ 'q[0-3][0-9a-f]{4}|q2b2b|q23' THEN
            marks := marks || ARRAY(
                SELECT '~' || r.run[1]
                  FROM regexp_matches(lower(normalize(term.original, NFKC) COLLATE "C"),
                                      format('([%s]+|[%s]|[a-z]{1,2}(?:\+\+|#))', search_characters('unsegmented'),
                                             search_characters('symbols')), 'g') AS r (run)
            );
        END IF;
        IF term.quoted THEN
            marks := marks || ('"' || trim(regexp_replace(term.folded, '[\s[:punct:]]+', ' ', 'g')));
        ELSIF term.prefix THEN
            marks := marks || ('*' || substring(term.folded FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)'));
        ELSE
            marks := marks || ARRAY(
                SELECT '=' || w.word
                  FROM unnest(tsvector_to_array(to_tsvector('pg_catalog.simple'::regconfig, term.folded)
                                                || search_stems(term.folded, language))) AS w (word)
            );
        END IF;
    END LOOP;
    RETURN ARRAY(SELECT DISTINCT m FROM unnest(marks) AS m);
END
$$;

SELECT eventstore_set_owner('FUNCTION search_highlight_terms');
