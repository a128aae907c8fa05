-- The words of a text, folded and separated by spaces, as the parser of text search must see them:
--
--   c++ and c#      as cq2b2b and cq23, of languages of one or two letters
--   東京都           as pairs of characters and the last one, each as q and its code points in hexadecimal, because no
--                   spaces separate the words: so every part of it is found
--   a symbol        as q and its code point
CREATE FUNCTION search_words(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words text := original;
BEGIN
    IF words ~ '[A-Za-z](\+\+|#)' THEN
        words := regexp_replace(words, '(?<![A-Za-z0-9])([A-Za-z]{1,2})\+\+(?![+A-Za-z0-9])', '\1q2b2b ', 'g');
        words := regexp_replace(words, '(?<![A-Za-z0-9])([A-Za-z]{1,2})#(?![#A-Za-z0-9])', '\1q23 ', 'g');
    END IF;
    words := search_expand(search_fold(words));
    IF octet_length(words) = length(words)
       OR words !~ format('[%s%s]', search_characters('unsegmented'), search_characters('symbols')) THEN
        RETURN words;
    END IF;
    RETURN (
        SELECT string_agg(CASE WHEN r.run[1] IS NOT NULL THEN ' ' || search_bigrams(r.run[1]) || ' '
                               WHEN r.run[2] IS NOT NULL THEN ' ' || search_bigram(r.run[2]) || ' '
                               ELSE r.run[3]
                          END, '' ORDER BY r.ordinal)
          FROM regexp_matches(words, format('([%1$s]+)|([%2$s])|([^%1$s%2$s]+)', search_characters('unsegmented'),
                                            search_characters('symbols')), 'g') WITH ORDINALITY AS r (run, ordinal)
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_words');
