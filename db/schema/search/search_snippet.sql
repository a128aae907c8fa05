-- The passages of an original text that match a query, with marks around the matches: of the first window that matches,
-- otherwise of the beginning. Characters of scripts without spaces are looked for as they are: that is faster.
CREATE FUNCTION search_snippet(document text, query tsquery, language text, marks text[], opening text, closing text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    place  integer := (SELECT min(nullif(strpos(lower(document COLLATE "C"), substr(m, 2)), 0))
                         FROM unnest(marks) AS m
                        WHERE m LIKE '~%');
    folded text;
BEGIN
    IF place IS NULL THEN
        FOR at IN 0 .. length(document) / 1000 LOOP
            folded := substr(document, at * 1000 + 1, 1200);
            folded := concat_ws(' ', search_expand(search_fold(folded)), search_identifier_parts(folded));
            IF setweight(to_tsvector('pg_catalog.simple'::regconfig, folded), 'A') || search_stems(folded, language)
               @@ query THEN
                -- With a little of what comes before, from a word on if there are spaces.
                place := greatest(at * 1000 - 199, 1);
                place := search_grapheme_end(document, place + coalesce(length(substring(
                             substr(document, place, CASE at WHEN 0 THEN 0 ELSE 50 END) FROM '^\S*\s+')), 0));
                EXIT;
            END IF;
        END LOOP;
    ELSE
        place := search_grapheme_end(document, greatest(place - 100, 1));
    END IF;
    place := coalesce(place, 1);
    RETURN search_highlight(
        normalize(replace(substr(document, place, search_grapheme_end(document, place + 1400) - place), E'\x1e', E'\n'),
                  NFKC),
        language, marks, opening, closing);
END
$$;

SELECT eventstore_set_owner('FUNCTION search_snippet');
