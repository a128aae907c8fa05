-- The terms of a query in their order: whether they are negated or prefixes, and on which side of an "or" they are.
-- Limited to a thousand characters and forty words.
CREATE FUNCTION search_terms(query text)
RETURNS TABLE (ordinal integer, side integer, negated boolean, quoted boolean, prefix boolean, words text)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    groups text[];
    word   text;
BEGIN
    ordinal := 0;
    side := 0;
    FOR groups IN
        SELECT regexp_matches(left(query, 1000), '(-?)(?:"([^"]*)"?|([^\s"]+))', 'g')
    LOOP
        IF lower(groups[3]) = 'or' AND groups[1] = '' THEN
            side := side + 1;
            CONTINUE;
        END IF;
        quoted := groups[2] IS NOT NULL;
        prefix := NOT quoted AND groups[3] LIKE '%*';
        negated := groups[1] = '-';
        word := trim(search_fold(coalesce(groups[2], groups[3])));
        -- Also in a phrase: the time to find one grows with the square of its words.
        word := substring(word FROM '^(?:[\s[:punct:]]*[^\s[:punct:]]+){0,40}');
        -- Half of all words begin with a prefix of one or two letters.
        prefix := prefix AND coalesce(length(substring(word FROM '[^\W_]+(?=\W*$)')) > 2, false);
        -- In the locale C, letters beyond ASCII are letters in text search, but not in regular expressions.
        IF word ~ '\w|[^\u0001-\u007f]' THEN
            ordinal := ordinal + 1;
            words := word;
            RETURN NEXT;
            EXIT WHEN ordinal = 40;
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_own('FUNCTION search_terms');
