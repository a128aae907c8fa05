-- The query with some of its words left out: of the five longest that are not stop words in the main languages, every
-- choice of all but `fewer`. Null if it has an "or", or if less than half of the words would remain.
CREATE FUNCTION search_relaxed_query(query text, fewer integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words    text[] := ARRAY(
        SELECT w.original
          FROM (SELECT t.ordinal, t.original
                  FROM search_parse_query(query) AS t
                 WHERE NOT (t.negated OR t.quoted OR t.prefix)
                   AND numnode(search_term_query(t.words, false, false, 'en')) > 0
                   AND numnode(search_term_query(t.words, false, false, 'pt')) > 0
                 ORDER BY length(t.original) DESC, t.ordinal
                 LIMIT 5) AS w
         ORDER BY w.ordinal
    );
    excluded text := (SELECT string_agg(' -' || CASE WHEN t.quoted THEN '"' || t.original || '"' ELSE t.original END, '')
                        FROM search_parse_query(query) AS t
                       WHERE t.negated);
    wanted   integer := cardinality(words) - fewer;
BEGIN
    IF wanted < 2 OR 2 * wanted < cardinality(words) OR EXISTS (SELECT FROM search_parse_query(query) AS t WHERE t.side > 0) THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT string_agg(c.choice || coalesce(excluded, ''), ' or ' ORDER BY c.bits)
          FROM generate_series(1, (1 << cardinality(words)) - 1) AS bits,
               LATERAL (SELECT bits, string_agg(w.word, ' ' ORDER BY w.n) AS choice, count(*) AS words
                          FROM unnest(words) WITH ORDINALITY AS w (word, n)
                         WHERE bits & (1 << (w.n::integer - 1)) <> 0) AS c
         WHERE c.words = wanted
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_relaxed_query');
