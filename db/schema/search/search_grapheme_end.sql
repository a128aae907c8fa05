-- The first place of a text, from a given one on, that is not within a character as readers see it: before it are its
-- combining marks, vowel signs, modifiers and joined emoji. The beginning of the next grapheme of Unicode, approximately.
CREATE FUNCTION search_grapheme_end(original text, place integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    joiner CONSTANT integer := x'200d'::integer;
    code   integer;
BEGIN
    FOR n IN place .. place + 30 LOOP
        code := ascii(substr(original, n, 1));
        IF code < 768 OR n = 1 OR NOT (
            code BETWEEN x'0300'::integer AND x'036f'::integer
            OR code BETWEEN x'0591'::integer AND x'05c7'::integer
            OR code BETWEEN x'064b'::integer AND x'065f'::integer
            -- The blocks of Indic scripts, which have the same layout.
            OR code BETWEEN x'0900'::integer AND x'0dff'::integer
               AND (code % 128 BETWEEN 1 AND 3 OR code % 128 BETWEEN 60 AND 79 OR code % 128 IN (86, 87, 98, 99))
            OR code BETWEEN x'0e31'::integer AND x'0e4e'::integer AND code NOT BETWEEN x'0e3f'::integer AND x'0e46'::integer
            OR code BETWEEN x'1160'::integer AND x'11ff'::integer
            OR code BETWEEN x'20d0'::integer AND x'20ff'::integer
            OR code BETWEEN x'fe00'::integer AND x'fe0f'::integer
            OR code BETWEEN x'1f3fb'::integer AND x'1f3ff'::integer
            OR code BETWEEN x'e0020'::integer AND x'e007f'::integer
            OR code IN (joiner, x'3099'::integer, x'309a'::integer)
            OR ascii(substr(original, n - 1, 1)) = joiner) THEN
            RETURN n;
        END IF;
    END LOOP;
    RETURN place + 31;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_grapheme_end');
