-- The terms of a query in their order: whether they are excluded or prefixes, and on which side of an "or" they are.
-- Limited to a thousand characters and forty words, also in a phrase: the time to find one grows with the square of its
-- words.
--
-- "-" excludes a word of two letters or more, or a phrase, if something else is searched for; "--help", "-5" and "ls -F"
-- are words. original: as it was typed, without the operators; words: see search_words.
CREATE FUNCTION search_parse_query(query text)
RETURNS TABLE (ordinal integer, side integer, negated boolean, quoted boolean, prefix boolean, original text, words text)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    given      text := left(query, 1000);
    groups     text[];
    has_wanted boolean := regexp_replace(given, '(?<!\S)-(?:"[^"]*"?|[^-0-9\s"][^\s"]+)', ' ', 'g') ~ '[^\s"*]';
BEGIN
    ordinal := 0;
    side := 0;
    FOR groups IN
        SELECT regexp_matches(given, '(?:((?<!\S)-)?"([^"]*)"?|([^\s"]+))', 'g')
    LOOP
        quoted := groups[2] IS NOT NULL;
        original := coalesce(groups[2], groups[3]);
        IF lower(original) = 'or' AND NOT quoted THEN
            side := side + 1;
            CONTINUE;
        END IF;
        negated := has_wanted AND (groups[1] IS NOT NULL OR (NOT quoted AND original ~ '^-[^-0-9\s][^\s]'));
        prefix := NOT quoted AND original ~ '\*$';
        original := regexp_replace(original, CASE WHEN negated AND NOT quoted THEN '^-|\*$' WHEN prefix THEN '\*$' ELSE '^$' END,
                                   '', 'g');
        words := trim(search_words(original));
        words := substring(words FROM '^[\s[:punct:]]*((?:[\s[:punct:]]*[^\s[:punct:]]+){0,40})');
        -- A quarter of all words begin with the same letter as another.
        prefix := prefix AND coalesce(length(substring(words FROM '[^\s[:punct:]]+(?=[\s[:punct:]]*$)')) > 1, false);
        IF words ~ '[^\s[:punct:]]' THEN
            ordinal := ordinal + 1;
            RETURN NEXT;
            EXIT WHEN ordinal = 40;
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_parse_query');
