-- A folded text prepared for the stemmer of a language, which needs accents: the Portuguese one knows "ção" and "ções",
-- not "cao" and "coes", and few of the plurals that change a letter (viagens, hotéis, animais). These endings become
-- singular, with the accent, whether or not it was typed. A space replaces a removed letter.
CREATE FUNCTION search_prepare(folded text, language text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    prepared text := folded;
BEGIN
    IF language = 'pt' THEN
        prepared := regexp_replace(prepared, 'oes\M', 'ao ', 'g');
        prepared := regexp_replace(prepared, '([^\Wm])aes\M', '\1ao ', 'g');
        prepared := regexp_replace(prepared, '([^\Wc])aos\M', '\1ao ', 'g');
        prepared := regexp_replace(prepared, 'cao\M', 'ção', 'g');
        prepared := regexp_replace(prepared, 'ao\M', 'ão', 'g');
        prepared := regexp_replace(prepared, '([aeiou])ns\M', '\1m ', 'g');
        prepared := regexp_replace(prepared, 'ceis\M', 'cil ', 'g');
        prepared := regexp_replace(prepared, '([a-z]{2}[ae])is\M', '\1l ', 'g');
    END IF;
    RETURN prepared;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_prepare');
