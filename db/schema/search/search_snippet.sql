-- The passages of an original text that match a query, with marks around the matches. ts_headline is slow on long
-- texts: it gets only the first window that has a match.
CREATE FUNCTION search_snippet(document text, query tsquery, language text, opening text, closing text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    stemmer  text;
    original text;
    prepared text;
    marked   text;
    -- Before PostgreSQL 16 the time of ts_headline grows exponentially with the words of a phrase: the words of a phrase
    -- of more than four words in three languages are marked separately.
    words    tsquery := CASE WHEN numnode(query) > 24
                             THEN regexp_replace(query::text, '<(-|\d+)>', '|', 'g')::tsquery
                             ELSE query
                        END;
BEGIN
    <<windows>>
    FOR at IN 0 .. length(document) / 1000 LOOP
        original := normalize(substr(document, at * 1000 + 1, 1200), NFC);
        FOREACH stemmer IN ARRAY CASE language WHEN 'und' THEN ARRAY['simple', 'en', 'pt'] ELSE ARRAY[language] END LOOP
            prepared := search_prepare(search_fold(original), stemmer);
            EXIT windows WHEN to_tsvector(search_config(stemmer), prepared) @@ query;
        END LOOP;
    END LOOP;
    IF length(original) <> length(prepared) THEN
        original := prepared;  -- it has marks that combine with nothing, which are omitted
    END IF;
    marked := ts_headline(search_config(stemmer), prepared, words,
        format('StartSel=%s, StopSel=%s, MaxFragments=2, MinWords=8, MaxWords=24, ShortWord=0, FragmentDelimiter=%s',
               chr(1), chr(2), chr(3)));
    RETURN (
        SELECT string_agg(search_highlighted(original, prepared, f.piece, opening, closing), ' … ' ORDER BY f.ordinal)
          FROM string_to_table(marked, chr(3)) WITH ORDINALITY AS f (piece, ordinal)
    );
END
$$;

SELECT eventstore_own('FUNCTION search_snippet');
