-- The code of a language that a text such as "pt", "pt-BR" or "en_US" names; null if it is unknown.
CREATE FUNCTION search_language_code(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    code text := lower(substring(original FROM '^([A-Za-z]{2})(?:[-_].*)?$'));
BEGIN
    IF code = ANY (ARRAY['ar', 'ca', 'da', 'de', 'el', 'en', 'es', 'eu', 'fi', 'fr', 'ga', 'hi', 'hu', 'hy', 'id', 'it',
                         'lt', 'ne', 'nl', 'no', 'pt', 'ro', 'ru', 'sr', 'sv', 'ta', 'tr', 'yi']) THEN
        RETURN code;
    END IF;
    -- Some clients write out the names of the two most frequent languages.
    RETURN CASE lower(original) WHEN 'portuguese' THEN 'pt' WHEN 'português' THEN 'pt' WHEN 'english' THEN 'en' END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_language_code');
