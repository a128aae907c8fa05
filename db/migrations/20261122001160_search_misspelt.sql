-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- A word with one letter too many, too few, exchanged or in the wrong place: everything it may have been meant to be.
CREATE FUNCTION search_variants(word text) RETURNS TABLE (variant text, effort integer)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT v.variant, min(v.effort)
      FROM generate_series(0, length(search_variants.word)) AS i,
           LATERAL (VALUES (left(word, i), substr(word, i + 1))) AS cut (before, behind),
           LATERAL (
               SELECT cut.before || substr(cut.behind, 2, 1) || substr(cut.behind, 1, 1) || substr(cut.behind, 3) AS variant, 1 AS effort
                WHERE length(cut.behind) > 1
                UNION ALL
               SELECT cut.before || substr(cut.behind, 2), 4 WHERE cut.behind <> ''
                UNION ALL
               SELECT cut.before || chr(letter) || substr(cut.behind, 2), 3 FROM generate_series(97, 122) AS letter
                WHERE cut.behind <> ''
                UNION ALL
               SELECT cut.before || chr(letter) || cut.behind, 2 FROM generate_series(97, 122) AS letter
           ) AS v
     WHERE v.variant <> search_variants.word
     GROUP BY v.variant;
END;

-- The word that a misspelt one was most likely meant to be, among those that the tenant's documents have; null where
-- none is near. Needs no table of words, which would slow the projection: all that differ in one place are looked up.
CREATE FUNCTION search_meant(word text, languages text[], tenant text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    RETURN (
        SELECT o.variant
          FROM (SELECT s.lexeme, (array_agg(v.variant ORDER BY v.effort, v.variant))[1] AS variant, min(v.effort) AS effort
                  FROM search_variants(word) AS v,
                       unnest(array_replace(languages, 'und', 'simple')) AS l (language),
                       unnest(to_tsvector(search_config(l.language), search_prepare(v.variant, l.language))) AS s
                 GROUP BY s.lexeme) AS o,
               LATERAL (SELECT count(*) AS number
                          FROM (SELECT
                                  FROM search_documents d
                                 WHERE d.words @@ (search_word(o.lexeme) && search_word((search_labels(search_meant.tenant, NULL, ''))[1]))
                                   AND (d.tenant_id = search_meant.tenant) IS TRUE
                                 LIMIT 200) AS d) AS found
         WHERE found.number > 0
         ORDER BY found.number DESC, o.effort, o.variant
         LIMIT 1
    );
END
$$;

-- The query with what is misspelt in it corrected; null where nothing is.
CREATE FUNCTION search_corrected(query text, languages text[], tenant text, up_to bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    unit    record;
    queries tsquery[];
    meant   text;
    words   text := '';
    at      integer := 0;
    changed boolean := false;
BEGIN
    FOR unit IN SELECT u.side, u.negated, u.quoted, u.prefix, u.said FROM search_units(query) AS u ORDER BY u.ordinal LOOP
        meant := NULL;
        IF NOT (unit.negated OR unit.quoted OR unit.prefix) AND unit.said ~ '^[^\W\d_]{4,30}$' THEN
            queries := ARRAY(SELECT search_query(unit.said, l.language) FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                              ORDER BY l.n);
            IF cardinality(search_latest(languages, queries, tenant, NULL, NULL, NULL, NULL, '-infinity', 'infinity', 0, up_to,
                                         1)) = 0 THEN
                meant := search_meant(unit.said, languages, tenant);
            END IF;
        END IF;
        changed := changed OR meant IS NOT NULL;
        words := concat_ws(' ', nullif(words, ''), CASE WHEN unit.side > at THEN 'or' END,
                           CASE WHEN unit.negated THEN '-' ELSE '' END
                           || CASE WHEN unit.quoted OR unit.said ~ '\s' THEN '"' || unit.said || '"' ELSE coalesce(meant, unit.said) END
                           || CASE WHEN unit.prefix THEN '*' ELSE '' END);
        at := unit.side;
    END LOOP;
    RETURN CASE WHEN changed THEN words END;
END
$$;

SELECT eventstore_own(format('FUNCTION %s', p.oid::regprocedure))
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('search_variants',
                     'search_meant',
                     'search_corrected');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION search_corrected;
DROP FUNCTION search_meant;
DROP FUNCTION search_variants;
