-- A text as it is compared: lower case without accents, and with spaces for signs that would join words (a-b, a/b,
-- a@b.c, <a>). A character stays one character, so that matches can be marked in the original text; only marks that
-- combine with nothing are lost. Not the extension "unaccent": not every server has it, and not every login may install
-- it. The chain of replace() is ten times faster than translate().
CREATE FUNCTION search_fold(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    folded text := replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(lower(original),
        '-', ' '), '/', ' '), '@', ' '), '.', ' '), '_', ' '), '<', ' '), '&', ' '), '+', ' '), '\', ' '),
        chr(1), ' '), chr(2), ' ');
BEGIN
    IF octet_length(folded) = length(folded) THEN
        RETURN folded;
    END IF;
    -- The letters of Western European languages; others take the slower way.
    folded := replace(replace(replace(replace(replace(replace(folded,
        'ã', 'a'), 'á', 'a'), 'ç', 'c'), 'é', 'e'), 'õ', 'o'), 'í', 'i');
    folded := replace(replace(replace(replace(replace(replace(folded,
        'ó', 'o'), 'ê', 'e'), 'ú', 'u'), 'â', 'a'), 'à', 'a'), 'ô', 'o');
    IF folded ~ '[^\u0001-\u007f\u2010-\u203a]' THEN
        folded := replace(replace(replace(replace(folded, 'ø', 'o'), 'ł', 'l'), 'đ', 'd'), 'ı', 'i');
        folded := lower(normalize(regexp_replace(normalize(folded, NFD), '[\u0300-\u036f]+', '', 'g'), NFC));
    END IF;
    RETURN folded;
END
$$;

SELECT eventstore_own('FUNCTION search_fold');
