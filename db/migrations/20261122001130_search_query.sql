-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- One word as a tsquery that stands for exactly it, whatever characters it has.
CREATE FUNCTION search_word(word text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN ('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''')::tsquery;

-- The words of a query as it is typed, in their order: negated, quoted, and which side of the "or"s they are on.
-- What is cut off (a thousand characters, forty words) no person types.
CREATE FUNCTION search_units(query text)
RETURNS TABLE (ordinal integer, side integer, negated boolean, quoted boolean, prefix boolean, said text)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    found text[];
    word  text;
BEGIN
    ordinal := 0;
    side := 0;
    FOR found IN
        SELECT regexp_matches(left(query, 1000), '(-?)(?:"([^"]*)"?|([^\s"]+))', 'g')
    LOOP
        IF lower(found[3]) = 'or' AND found[1] = '' THEN
            side := side + 1;
            CONTINUE;
        END IF;
        quoted := found[2] IS NOT NULL;
        prefix := NOT quoted AND found[3] LIKE '%*';
        negated := found[1] = '-';
        word := trim(search_fold(coalesce(found[2], found[3])));
        -- Of a phrase too: the time to find one grows with the square of its words.
        word := substring(word FROM '^(?:[\s[:punct:]]*[^\s[:punct:]]+){0,40}');
        -- A prefix of a letter or two is in half of all words.
        prefix := prefix AND coalesce(length(substring(word FROM '[^\W_]+(?=\W*$)')) > 2, false);
        -- In the locale C, letters beyond ASCII are letters to the text search and not to regular expressions.
        IF word ~ '\w|[^\u0001-\u007f]' THEN
            ordinal := ordinal + 1;
            said := word;
            RETURN NEXT;
            EXIT WHEN ordinal = 40;
        END IF;
    END LOOP;
END
$$;

-- The stems that words beginning so may have in a language: a stem is shorter than what was typed of the word, so the
-- words are made up with the usual endings.
CREATE FUNCTION search_prefix(prefix text, language text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    found tsquery := (search_word(prefix)::text || ':*')::tsquery;
    word  text;
BEGIN
    FOR word IN
        SELECT DISTINCT s.lexeme
          FROM unnest(CASE language
                   WHEN 'pt' THEN ARRAY['', 'o', 'a', 'ao', 'm', 'em', 'r', 'ar', 'er', 'ir', 's', 'os', 'as', 'do', 'ado',
                                        'ndo', 'mente', 'ento', 'l', 'el', 'ia', 'ncia', 'cao', 'dade', 'e', 'es', 'vel']
                   WHEN 'en' THEN ARRAY['', 's', 'e', 'es', 'ed', 'd', 'ing', 'ng', 'ion', 'on', 'tion', 'ation', 'er', 'r', 'ly',
                                        'y', 'ment', 'ent', 'al', 'ies', 'ness', 'n', 't', 'able', 'ive', 'ity']
                   ELSE ARRAY['', 'a', 'e', 'o', 's', 'n', 'en', 'er', 'es']
               END) AS ending,
               LATERAL unnest(to_tsvector(search_config(language), search_prepare(prefix || ending, language))) AS s
         WHERE NOT starts_with(s.lexeme, prefix)
    LOOP
        found := found || search_word(word);
    END LOOP;
    RETURN found;
END
$$;

-- One unit of a query in the words of a language; without any where it is all stop words there.
CREATE FUNCTION search_unit(said text, prefix boolean, language text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    last_word text;
    before    tsquery;
BEGIN
    IF NOT prefix THEN
        RETURN phraseto_tsquery(search_config(language), search_prepare(said, language));
    END IF;
    last_word := left(substring(said FROM '[^\W_]+(?=\W*$)'), 100);
    before := phraseto_tsquery(search_config(language), search_prepare(substring(said FROM '^(.*?)[^\W_]+\W*$'), language));
    RETURN before && search_prefix(last_word, language);
END
$$;

-- A query in the words of a language. Of a text whose language is not known all readings of the query are tried.
--
-- shown: what is to be marked in a text instead: every word that is asked for.
CREATE FUNCTION search_query(query text, language text, shown boolean DEFAULT false) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    whole tsquery := '';
    part  tsquery := '';
    one   tsquery;
    unit  record;
    at    integer := 0;
BEGIN
    IF language = 'und' THEN
        RETURN search_query(query, 'simple', shown) || search_query(query, 'en', shown) || search_query(query, 'pt', shown);
    END IF;
    FOR unit IN SELECT u.side, u.negated, u.prefix, u.said FROM search_units(query) AS u ORDER BY u.ordinal LOOP
        IF unit.side > at THEN
            whole := whole || part;
            part := '';
            at := unit.side;
        END IF;
        one := search_unit(unit.said, unit.prefix, language);
        CONTINUE WHEN numnode(one) = 0 OR (shown AND unit.negated);
        part := CASE WHEN shown THEN part || one WHEN unit.negated THEN part && !!one ELSE part && one END;
    END LOOP;
    RETURN whole || part;
END
$$;

-- The languages that a tenant's documents may have: those that are detected, and those that its conversations name.
CREATE FUNCTION search_languages(tenant text) RETURNS text[]
LANGUAGE plpgsql STABLE STRICT SET search_path FROM CURRENT AS $$
BEGIN
    RETURN (
        WITH RECURSIVE named (language) AS (
            SELECT min(c.language::text) FROM search_conversations c
             WHERE c.tenant_id = search_languages.tenant AND c.language IS NOT NULL
            UNION ALL
            SELECT (SELECT min(c.language::text) FROM search_conversations c
                     WHERE c.tenant_id = search_languages.tenant AND c.language > n.language)
              FROM named n
             WHERE n.language IS NOT NULL
        )
        SELECT array_agg(DISTINCT l.language)
          FROM (SELECT n.language FROM named n
                 UNION ALL
                SELECT unnest(ARRAY['und', 'pt', 'en', 'es', 'fr', 'de', 'it'])) AS l
         WHERE l.language IS NOT NULL
    );
END
$$;

SELECT eventstore_own(format('FUNCTION %s', p.oid::regprocedure))
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('search_word',
                     'search_units',
                     'search_prefix',
                     'search_unit',
                     'search_query',
                     'search_languages');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION search_languages;
DROP FUNCTION search_query;
DROP FUNCTION search_unit;
DROP FUNCTION search_prefix;
DROP FUNCTION search_units;
DROP FUNCTION search_word;
