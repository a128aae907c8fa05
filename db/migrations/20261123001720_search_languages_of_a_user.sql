-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- As before (migration 001160), and: what a misspelt word was meant to be is guessed, for a user, in the languages that are
-- always tried (those of a tenant that has none) and those of his own conversations. In the languages of others he would
-- be corrected otherwise, and so told which they speak.
CREATE OR REPLACE FUNCTION search_corrected(query text, languages text[], tenant text, up_to bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    unit    record;
    queries tsquery[];
    meant   text;
    words   text := '';
    at      integer := 0;
    changed boolean := false;
BEGIN
    IF asking_user() IS NOT NULL THEN
        languages := ARRAY(
            SELECT l.language
              FROM unnest(languages) WITH ORDINALITY AS l (language, n)
             WHERE l.language IN (SELECT u.language FROM search_languages('') AS s (of_all), unnest(s.of_all) AS u (language))
                OR EXISTS (
                       SELECT
                         FROM (SELECT m.conversation_id
                                 FROM conversation_members m
                                WHERE m.tenant_id = tenant AND m.user_id = asking_user()
                                LIMIT 10000) AS own
                         JOIN search_conversations c
                           ON c.tenant_id = tenant
                          AND c.conversation_id = own.conversation_id
                        WHERE c.language = l.language
                   )
             ORDER BY l.n
        );
    END IF;
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

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- As it was before.
CREATE OR REPLACE FUNCTION search_corrected(query text, languages text[], tenant text, up_to bigint) RETURNS text
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
