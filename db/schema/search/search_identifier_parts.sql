-- The parts of the words in camel case of a text, such as "get user name" of getUserName; empty if there is none.
CREATE FUNCTION search_identifier_parts(original text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF original !~ '[a-z0-9][A-Z]|[A-Z]{2}[a-z]' THEN
        RETURN '';
    END IF;
    RETURN coalesce((
        SELECT string_agg(lower(search_split(m.word[1]) COLLATE "C"), E'\x1e')
          FROM regexp_matches(original, '(?<![A-Za-z0-9])([A-Za-z0-9]*(?:[a-z0-9][A-Z]|[A-Z]{2}[a-z])[A-Za-z0-9]*)', 'g') AS m (word)
    ), '');
END
$$;

SELECT eventstore_set_owner('FUNCTION search_identifier_parts');
