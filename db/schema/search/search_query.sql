-- A query in the words of a language: in its stems, or, for texts whose language was not recognised, in the words as they
-- are. For texts of unknown language, the readings in the two main languages, and in that of the script, are combined.
--
-- shown: whether to return the query for the passages of a snippet instead: all words that are not excluded.
CREATE FUNCTION search_query(query text, language text, shown boolean DEFAULT false) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    combined   tsquery := '';
    whole      tsquery;
    part       tsquery;
    reading    text;
    term       record;
    term_query tsquery;
    last_side  integer;
    has_wanted boolean;
BEGIN
    FOREACH reading IN ARRAY array_remove(
        ARRAY['exact'] || CASE language WHEN 'und' THEN ARRAY['en', 'pt', search_script_language(search_fold(query))]
                                        ELSE ARRAY[language]
                          END, NULL)
    LOOP
        whole := '';
        part := '';
        last_side := 0;
        has_wanted := false;
        FOR term IN
            SELECT t.side, t.negated, t.prefix, t.quoted, t.words FROM search_parse_query(query) AS t ORDER BY t.ordinal
        LOOP
            IF term.side > last_side THEN
                whole := whole || part;
                part := '';
                last_side := term.side;
            END IF;
            term_query := search_term_query(term.words, term.prefix, term.quoted, reading);
            IF term.negated AND numnode(term_query) = 0 THEN
                term_query := search_exact_query(term.words, term.prefix);
            END IF;
            CONTINUE WHEN numnode(term_query) = 0 OR (shown AND term.negated);
            has_wanted := has_wanted OR NOT term.negated;
            part := CASE
                        WHEN shown THEN part || term_query
                        WHEN term.negated THEN part && !!term_query
                        ELSE part && term_query
                    END;
        END LOOP;
        whole := whole || part;
        -- Stop words alone leave nothing to search for but what is excluded.
        IF reading = 'exact' OR shown OR has_wanted THEN
            combined := combined || whole;
        END IF;
    END LOOP;
    RETURN combined;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_query');
