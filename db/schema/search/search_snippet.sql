-- The passages of an original text that match a query, with marks around the matches. ts_headline is slow on long
-- texts: it gets only the first window that has a match.
CREATE FUNCTION search_snippet(said text, asked tsquery, language text, opening text, closing text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    reading  text;
    original text;
    prepared text;
    marked   text;
    -- Before PostgreSQL 16 the time of ts_headline grows exponentially with the words of a phrase: the words of a phrase
    -- of more than four words in three readings are marked separately.
    words    tsquery := CASE WHEN numnode(asked) > 24
                             THEN regexp_replace(asked::text, '<(-|\d+)>', '|', 'g')::tsquery
                             ELSE asked
                        END;
BEGIN
    <<windows>>
    FOR at IN 0 .. length(said) / 1000 LOOP
        original := normalize(substr(said, at * 1000 + 1, 1200), NFC);
        FOREACH reading IN ARRAY CASE language WHEN 'und' THEN ARRAY['simple', 'en', 'pt'] ELSE ARRAY[language] END LOOP
            prepared := search_prepare(search_fold(original), reading);
            EXIT windows WHEN to_tsvector(search_config(reading), prepared) @@ asked;
        END LOOP;
    END LOOP;
    IF length(original) <> length(prepared) THEN
        original := prepared;  -- it has marks that combine with nothing, which are omitted
    END IF;
    marked := ts_headline(search_config(reading), prepared, words,
        format('StartSel=%s, StopSel=%s, MaxFragments=2, MinWords=8, MaxWords=24, ShortWord=0, FragmentDelimiter=%s',
               chr(1), chr(2), chr(3)));
    RETURN (
        SELECT string_agg(search_marked(original, prepared, f.piece, opening, closing), ' … ' ORDER BY f.ordinal)
          FROM string_to_table(marked, chr(3)) WITH ORDINALITY AS f (piece, ordinal)
    );
END
$$;

SELECT eventstore_own('FUNCTION search_snippet');
