-- The passages of a text with matches (search_highlight_terms), and marks around the matches: at most two of about 24
-- words. If the text has no matches, its beginning.
--
-- A character of the folded text stands for the one at the same place of the text.
CREATE FUNCTION search_highlight(document text, language text, marks text[], opening text, closing text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    folded    text := search_fold(document);
    original  text := CASE WHEN length(folded) = length(document) THEN document ELSE folded END;
    -- The first two letters of the words to be marked and of their stems: what begins otherwise has another stem.
    stems     text[] := ARRAY(SELECT substr(m, 2) FROM unnest(marks) AS m WHERE m LIKE '=%');
    initials  text[] := ARRAY(SELECT left(s, 2) FROM unnest(stems) AS s);
    prefixes  text[] := ARRAY(SELECT substr(m, 2) || '%' FROM unnest(marks) AS m WHERE m LIKE '*%');
    words     text[] := '{}';
    parts     text[];
    part      text;
    places    integer[] := '{}';
    ends      integer[] := '{}';
    spans     int4multirange := '{}';
    piece     text[];
    place     integer := 1;
    next      integer;
    mark      text;
    phrase    text[];
    size      integer;
    span      int4range;
    passage   int4range;
    shown     text := '';
BEGIN
    FOR piece IN
        SELECT regexp_matches(folded, format('([0-9a-z\u00ad%1$s]+)|([^0-9a-z\u00ad%1$s]+)', search_characters('letters')),
                              'g')
    LOOP
        IF piece[1] IS NOT NULL THEN
            words := words || search_expand(piece[1]);
            places := places || place;
            ends := ends || place + length(piece[1]);
            parts := piece[1:1];
            part := substr(original, place, length(piece[1]));
            IF part ~ '[a-z0-9][A-Z]|[A-Z]{2}[a-z]' THEN
                parts := parts || string_to_array(lower(search_split(part) COLLATE "C"), ' ');
            END IF;
            next := place;
            FOR n IN 1 .. cardinality(parts) LOOP
                part := search_expand(parts[n]);
                IF part = ANY (stems)
                   OR part LIKE ANY (prefixes)
                   OR (left(part, 2) = ANY (initials) AND tsvector_to_array(search_stems(part, language)) && stems) THEN
                    spans := spans + int4multirange(int4range(next, next + length(parts[n])));
                    EXIT WHEN n = 1;
                END IF;
                next := next + CASE n WHEN 1 THEN 0 ELSE length(parts[n]) END;
            END LOOP;
        END IF;
        place := place + length(coalesce(piece[1], piece[2]));
    END LOOP;
    FOREACH mark IN ARRAY marks LOOP
        IF mark LIKE '"%' THEN
            phrase := string_to_array(substr(mark, 2), ' ');
            size := cardinality(phrase);
            FOR n IN 1 .. cardinality(words) - size + 1 LOOP
                IF words[n] = phrase[1] AND words[n:n + size - 1] = phrase THEN
                    spans := spans + int4multirange(int4range(places[n], ends[n + size - 1]));
                END IF;
            END LOOP;
        ELSIF mark LIKE '~%' THEN
            size := length(mark) - 1;
            place := 1;
            LOOP
                next := strpos(substr(lower(original COLLATE "C"), place), substr(mark, 2));
                EXIT WHEN next = 0;
                spans := spans + int4multirange(int4range(place + next - 1,
                                                          search_grapheme_end(original, place + next - 1 + size)));
                place := place + next - 1 + size;
            END LOOP;
        END IF;
    END LOOP;

    FOR number IN 1 .. 2 LOOP
        -- The first passage begins eight words before the first mark; the second, before the first one after it.
        span := (SELECT s FROM unnest(spans) AS s WHERE passage IS NULL OR lower(s) >= upper(passage) ORDER BY s LIMIT 1);
        EXIT WHEN number = 2 AND span IS NULL;
        place := coalesce(lower(span), 1);
        place := search_grapheme_end(original, greatest(
            place - least(length(substring(left(original, place - 1) FROM '(?:\S+\s+){0,8}\S*$')), 200),
            coalesce(upper(passage), 1)));
        passage := int4range(place, greatest(
            search_grapheme_end(original, place + least(
                length(substring(substr(original, place) FROM '^\s*(?:\S+\s+){0,23}\S*')), 500)),
            coalesce(upper(span), 1)));
        shown := shown || CASE WHEN number = 2 THEN ' … ' ELSE '' END;
        FOR span IN SELECT s FROM unnest(spans) AS s WHERE s <@ passage ORDER BY s LOOP
            shown := shown || substr(original, place, lower(span) - place)
                  || opening || substr(original, lower(span), upper(span) - lower(span)) || closing;
            place := upper(span);
        END LOOP;
        shown := shown || substr(original, place, upper(passage) - place);
    END LOOP;
    RETURN shown;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_highlight');
