-- Each character of a text with the one that follows it, and the last one, as words.
CREATE FUNCTION search_bigrams(run text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN (
        SELECT string_agg(search_bigram(p.pair), ' ' ORDER BY p.n)
          FROM (SELECT c.n, concat(c.character, lead(c.character) OVER (ORDER BY c.n)) AS pair
                  FROM string_to_table(run, NULL) WITH ORDINALITY AS c (character, n)) AS p
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_bigrams');
