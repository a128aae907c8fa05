-- The units of a query in their order: whether they are negated or prefixes, and on which side of an "or" they are.
-- Limited to a thousand characters and forty words.
CREATE FUNCTION search_units(query text)
RETURNS TABLE (ordinal integer, side integer, negated boolean, quoted boolean, prefix boolean, said text)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    found text[];
    word  text;
BEGIN
    ordinal := 0;
    side := 0;
    FOR found IN
        SELECT regexp_matches(left(query, 1000), '(-?)(?:"([^"]*)"?|([^\s"]+))', 'g')
    LOOP
        IF lower(found[3]) = 'or' AND found[1] = '' THEN
            side := side + 1;
            CONTINUE;
        END IF;
        quoted := found[2] IS NOT NULL;
        prefix := NOT quoted AND found[3] LIKE '%*';
        negated := found[1] = '-';
        word := trim(search_fold(coalesce(found[2], found[3])));
        -- Also in a phrase: the time to find one grows with the square of its words.
        word := substring(word FROM '^(?:[\s[:punct:]]*[^\s[:punct:]]+){0,40}');
        -- Half of all words begin with a prefix of one or two letters.
        prefix := prefix AND coalesce(length(substring(word FROM '[^\W_]+(?=\W*$)')) > 2, false);
        -- In the locale C, letters beyond ASCII are letters in text search, but not in regular expressions.
        IF word ~ '\w|[^\u0001-\u007f]' THEN
            ordinal := ordinal + 1;
            said := word;
            RETURN NEXT;
            EXIT WHEN ordinal = 40;
        END IF;
    END LOOP;
END
$$;

SELECT eventstore_own('FUNCTION search_units');
