-- The language whose stemmer reads words of unknown language in another script than Latin; null if it is Latin, or no
-- stemmer reads the script. Words of related languages get stems too, the same in texts and queries.
CREATE FUNCTION search_script_language(words text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN CASE WHEN octet_length(words) = length(words) THEN NULL
                WHEN words ~ '[\u0430-\u052f]' THEN 'ru'
                WHEN words ~ '[\u03b1-\u03c9]' THEN 'el'
                WHEN words ~ '[\u0561-\u0587]' THEN 'hy'
                WHEN words ~ '[\u0621-\u064a]' THEN 'ar'
           END;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_script_language');
