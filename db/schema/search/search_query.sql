-- A query in the words of a language. For texts of unknown language, all readings of the query are combined.
--
-- shown: the query for marking matches in a text instead: all words that are not negated.
CREATE FUNCTION search_query(query text, language text, shown boolean DEFAULT false) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    whole tsquery := '';
    part  tsquery := '';
    one   tsquery;
    unit  record;
    at    integer := 0;
BEGIN
    IF language = 'und' THEN
        RETURN search_query(query, 'simple', shown) || search_query(query, 'en', shown) || search_query(query, 'pt', shown);
    END IF;
    FOR unit IN SELECT u.side, u.negated, u.prefix, u.said FROM search_units(query) AS u ORDER BY u.ordinal LOOP
        IF unit.side > at THEN
            whole := whole || part;
            part := '';
            at := unit.side;
        END IF;
        one := search_unit(unit.said, unit.prefix, language);
        CONTINUE WHEN numnode(one) = 0 OR (shown AND unit.negated);
        part := CASE WHEN shown THEN part || one WHEN unit.negated THEN part && !!one ELSE part && one END;
    END LOOP;
    RETURN whole || part;
END
$$;

SELECT eventstore_own('FUNCTION search_query');
