-- A query in the words of a language. For texts of unknown language, all readings of the query are combined.
--
-- shown: the query for marking matches in a text instead: all words that are not negated.
CREATE FUNCTION search_query(query text, language text, shown boolean DEFAULT false) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    whole      tsquery := '';
    part       tsquery := '';
    term       record;
    term_query tsquery;
    last_side  integer := 0;
BEGIN
    IF language = 'und' THEN
        RETURN search_query(query, 'simple', shown)
            || search_query(query, 'en', shown)
            || search_query(query, 'pt', shown);
    END IF;
    FOR term IN SELECT t.side, t.negated, t.prefix, t.words FROM search_terms(query) AS t ORDER BY t.ordinal LOOP
        IF term.side > last_side THEN
            whole := whole || part;
            part := '';
            last_side := term.side;
        END IF;
        term_query := search_term_query(term.words, term.prefix, language);
        CONTINUE WHEN numnode(term_query) = 0 OR (shown AND term.negated);
        part := CASE
                    WHEN shown THEN part || term_query
                    WHEN term.negated THEN part && !!term_query
                    ELSE part && term_query
                END;
    END LOOP;
    RETURN whole || part;
END
$$;

SELECT eventstore_own('FUNCTION search_query');
