-- Words (search_words) as they are, adjacent and in this order, as a tsquery; empty if there is none. A single character of
-- a script without spaces matches each pair that begins with it; after a pair, it is in that pair.
CREATE FUNCTION search_exact_query(words text, prefix boolean DEFAULT false) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    pairs text := regexp_replace(words, '(\mq[0-3][0-9a-f]{9}) q[0-3][0-9a-f]{4}\s*$', '\1');
    query text := regexp_replace(phraseto_tsquery('pg_catalog.simple'::regconfig, pairs)::text, '(''[^'']+'')', '\1:A', 'g');
BEGIN
    IF prefix THEN
        query := query || '*';
    END IF;
    RETURN regexp_replace(query, '(''q[0-3][0-9a-f]{4}'':)A', '\1*A', 'g')::tsquery;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_exact_query');
