-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Row level security and full text do not go together: the operators are not leakproof, and the index would not be used.
-- So the functions that look into the documents run as a role of their own, which sees them all, and apply the tenant
-- themselves. Made as the other roles are (migration 000100).
DO $$
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'eventstore_search') THEN
            CREATE ROLE eventstore_search NOLOGIN NOSUPERUSER;
        END IF;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN
            RAISE NOTICE 'role eventstore_search was made by somebody else just now';
        WHEN insufficient_privilege THEN
            RAISE WARNING 'role eventstore_search is missing and % may not create it', session_user;
    END;
    BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'eventstore_search')
           AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
            EXECUTE format('GRANT eventstore_search TO %I', session_user);
        END IF;
    EXCEPTION
        WHEN insufficient_privilege OR invalid_grant_operation THEN
            RAISE NOTICE '% may not grant role eventstore_search to itself', session_user;
    END;
END
$$;

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
        -- A prefix of a letter or two is in half of all words.
        prefix := prefix AND length(substring(word FROM '[^\W_]+(?=\W*$)')) > 2;
        IF word ~ '\w' THEN
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
LANGUAGE sql STABLE STRICT
BEGIN ATOMIC
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
     WHERE l.language IS NOT NULL;
END;

-- Documents that were found, with their ranks.
CREATE TYPE search_found AS (
    conversation_id uuid,
    version         integer,
    "position"      bigint,
    kind            text,
    id              uuid,
    role            text,
    actor           text,
    created_at      timestamptz,
    language        text,
    rank            real
);

-- Looks for documents in one of three ways, the latest by time first. Each has a plan of its own, made for these values;
-- the settings, and what is written so that no index can be taken for it, leave the planner no other, whatever it
-- believes of the table.
--
-- words:        through the index of words: all that match are read;
-- time:         along the times, looking at no more than `budget` documents;
-- conversation: all of one conversation.
--
-- The rank is that of ts_rank for a text of usual length; the longer one is, the less a word in it says.
--
-- queries: what is asked for, in the order of languages. Each document is asked in its own language.
-- asked:   what the index of words is asked for, labels included.
-- below:   only what is before this time or, at this time, below this position.
CREATE FUNCTION search_look(
    way text, languages text[], queries tsquery[], asked tsquery, tenant text, conversation uuid, kind text, role text,
    actor text, since timestamptz, below timestamptz, below_position bigint, up_to bigint, budget integer, wanted integer
) RETURNS SETOF search_found
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    columns CONSTANT text :=
        'd.conversation_id, d.version, d.position, d.kind, d.id, d.role, d.actor, d.created_at, d.language, d.words';
    first CONSTANT text := CASE way
        WHEN 'words' THEN 'd.words @@ $4'
        WHEN 'time' THEN 'd.tenant_id = $5 AND d.created_at >= $10 AND (d.created_at, d.position) < ($11, $12)
                           ORDER BY d.created_at DESC, d.position DESC LIMIT $14'
        WHEN 'conversation' THEN 'd.tenant_id = $5 AND d.conversation_id = $6'
    END;
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT f.conversation_id, f.version, f.position, f.kind::text, f.id, f.role::text, f.actor::text, f.created_at,
                f.language::text,
                (ts_rank(f.words, $3[array_position($2, f.language::text)]) / (40 + length(f.words)))::real
           FROM (SELECT %1$s
                   FROM (SELECT %1$s, d.tenant_id FROM search_documents d WHERE %2$s OFFSET 0) AS d
                  WHERE d.tenant_id = $5 AND d.created_at >= $10 AND (d.created_at, d.position) < ($11, $12)
                    AND d.position <= $13 %3$s
                    AND ts_match_vq(d.words, $3[array_position($2, d.language::text)])
                    AND (SELECT c.is_deleted FROM search_conversations c
                          WHERE c.tenant_id = $5 AND c.conversation_id = d.conversation_id) IS NOT TRUE
                  ORDER BY d.created_at DESC, d.position DESC LIMIT $15) AS f',
        columns, first,
        concat(CASE WHEN kind IS NOT NULL THEN ' AND (d.kind = ''message'') = ($7 = ''message'')' END,
               CASE WHEN role IS NOT NULL THEN ' AND d.role = $8' END,
               CASE WHEN actor IS NOT NULL THEN ' AND d.actor = $9' END))
    USING way, languages, queries, asked, tenant, conversation, kind, role, actor, since, below, below_position, up_to,
          budget, wanted;
END
$$;

-- What the index of words is asked for: the query in every language, and the labels (see search_labels).
CREATE FUNCTION search_asked(queries tsquery[], tenant text, kind text, role text, actor text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    asked   tsquery := '';
    reading tsquery;
BEGIN
    FOR reading IN SELECT DISTINCT q FROM unnest(queries) AS q WHERE numnode(q) > 0 LOOP
        asked := asked || reading;
    END LOOP;
    IF numnode(asked) = 0 THEN
        RETURN asked;
    END IF;
    asked := asked && search_word('=' || tenant);
    IF role IS NOT NULL OR kind = 'task' THEN
        asked := asked && search_word('=role ' || coalesce(role, 'task'));
    END IF;
    IF actor IS NOT NULL THEN
        asked := asked && search_word('=actor ' || actor);
    END IF;
    RETURN asked;
END
$$;

-- Whether there are at most so many documents in a range of time.
CREATE FUNCTION search_is_short(tenant text, since timestamptz, below timestamptz, below_position bigint, budget integer)
RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT NOT EXISTS (
        SELECT
          FROM search_documents d
         WHERE d.tenant_id = search_is_short.tenant
           AND d.created_at >= search_is_short.since
           AND (d.created_at, d.position) < (search_is_short.below, search_is_short.below_position)
         ORDER BY d.created_at DESC, d.position DESC
        OFFSET search_is_short.budget
    );
END;

-- The latest that match, in the way that is cheaper. A word that is in every fiftieth document or more is found often
-- enough along the times; one that is rarer is looked up in the index of words, and all that have it are read. Which it
-- is, the last documents tell: no statistics that might be missing or old are asked.
CREATE FUNCTION search_latest(
    languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, below timestamptz, below_position bigint, up_to bigint, wanted integer
) RETURNS search_found[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    asked  tsquery := search_asked(queries, tenant, kind, role, actor);
    way    text := CASE WHEN conversation IS NULL THEN 'time' ELSE 'conversation' END;
    budget integer := 2000;
    found  search_found[];
    sample integer;
BEGIN
    IF numnode(asked) = 0 THEN
        RETURN ARRAY[]::search_found[];
    END IF;
    LOOP
        found := ARRAY(SELECT f FROM search_look(way, languages, queries, asked, tenant, conversation, kind, role, actor, since,
                                                 below, below_position, up_to, budget, wanted) AS f);
        IF cardinality(found) >= wanted OR way <> 'time' OR search_is_short(tenant, since, below, below_position, budget) THEN
            RETURN found;
        END IF;
        IF sample IS NULL AND cardinality(found) >= budget / 50 THEN
            sample := cardinality(found);
            budget := budget * wanted / sample * 2;
        ELSE
            way := 'words';
        END IF;
    END LOOP;
END
$$;

-- Folded and original text are equal in length, character for character, wherever this is called; so a piece of the
-- one is cut out of the other, with marks where the folded one has them (chr(1) before, chr(2) behind).
CREATE FUNCTION search_marked(original text, prepared text, marked text, opening text, closing text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    plain    text := replace(replace(marked, chr(1), ''), chr(2), '');
    begins   integer := position(plain IN prepared);
    -- Of a plural that was made a singular the last letter stands behind what is marked.
    piece    text := substring(substr(original, begins) FROM format('^.{%s}[[:alnum:]]?', length(plain)));
    shown    text := '';
    rest     text := marked;
    is_open  boolean := false;
    size     integer;
BEGIN
    LOOP
        size := strpos(rest, CASE WHEN is_open THEN chr(2) ELSE chr(1) END);
        EXIT WHEN size = 0;
        shown := shown || left(piece, size - 1);
        piece := substr(piece, size);
        rest := substr(rest, size + 1);
        IF is_open THEN
            size := length(substring(piece FROM '^[[:alnum:]]?'));
            shown := shown || left(piece, size) || closing;
            piece := substr(piece, size + 1);
            rest := substr(rest, size + 1);
        ELSE
            shown := shown || opening;
        END IF;
        is_open := NOT is_open;
    END LOOP;
    RETURN shown || piece;
END
$$;

-- The places of a text that a query finds, as it was written, with marks around what was found. ts_headline is slow on
-- long texts: of these only a window is given to it, the first that has anything.
CREATE FUNCTION search_snippet(said text, asked tsquery, language text, opening text, closing text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    reading  text;
    original text;
    prepared text;
    marked   text;
BEGIN
    <<windows>>
    FOR at IN 0 .. length(said) / 5000 LOOP
        original := normalize(substr(said, at * 5000 + 1, 5500), NFC);
        FOREACH reading IN ARRAY CASE language WHEN 'und' THEN ARRAY['simple', 'en', 'pt'] ELSE ARRAY[language] END LOOP
            prepared := search_prepare(search_fold(original), reading);
            EXIT windows WHEN to_tsvector(search_config(reading), prepared) @@ asked;
        END LOOP;
    END LOOP;
    IF length(original) <> length(prepared) THEN
        original := prepared;  -- it has marks that combine with nothing: shown without them
    END IF;
    marked := ts_headline(search_config(reading), prepared, asked,
        format('StartSel=%s, StopSel=%s, MaxFragments=2, MinWords=8, MaxWords=24, ShortWord=0, FragmentDelimiter=%s',
               chr(1), chr(2), chr(3)));
    RETURN (
        SELECT string_agg(search_marked(original, prepared, f.piece, opening, closing), ' … ' ORDER BY f.ordinal)
          FROM string_to_table(marked, chr(3)) WITH ORDINALITY AS f (piece, ordinal)
    );
END
$$;

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
                                 WHERE d.words @@ (search_word(o.lexeme) && search_word('=' || search_meant.tenant))
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

-- The documents of one page. `told` is what the cursor says, null for the first page.
CREATE FUNCTION search_page(
    by text, languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, until timestamptz, up_to bigint, told json, page integer
) RETURNS search_found[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    best CONSTANT integer := 500;
BEGIN
    IF by = 'time' THEN
        RETURN search_latest(languages, queries, tenant, conversation, kind, role, actor, since,
                             coalesce((told ->> 3)::timestamptz, until), coalesce((told ->> 4)::bigint, 0), up_to, page);
    END IF;
    RETURN ARRAY(
        SELECT f
          FROM unnest(search_latest(languages, queries, tenant, conversation, kind, role, actor, since, until, 0, up_to,
                                    greatest(best, page))) AS f
         WHERE told IS NULL OR (f.rank, f.position) < ((told ->> 3)::real, (told ->> 4)::bigint)
         ORDER BY f.rank DESC, f.position DESC
         LIMIT page
    );
END
$$;

-- What one page of a search left for the next: where it ended, and for which search. Text that only this understands.
CREATE FUNCTION search_cursor(search text, up_to bigint, query text, key text, "position" bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN translate(encode(convert_to(json_build_array(search, up_to, query, key, "position")::text, 'UTF8'), 'base64'), E'\n', '');

CREATE FUNCTION search_resumed(cursor text, search text) RETURNS json
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    told json;
BEGIN
    BEGIN
        told := convert_from(decode(cursor, 'base64'), 'UTF8')::json;
        PERFORM (told ->> 1)::bigint, (told ->> 4)::bigint,
                CASE left(search, 1) WHEN 't' THEN (told ->> 3)::timestamptz::text ELSE (told ->> 3)::real::text END;
    EXCEPTION
        WHEN OTHERS THEN
            told := NULL;
    END;
    IF told IS NULL OR json_array_length(told) <> 5 OR (told ->> 0) IS DISTINCT FROM search OR (told ->> 4) IS NULL
       OR (told ->> 3) IS NULL OR (told ->> 2) IS NULL OR (told ->> 1) IS NULL THEN
        RAISE EXCEPTION 'the cursor belongs to no page of this search'
            USING ERRCODE = 'ES005', HINT = 'Give the cursor of the last row, with the same query and filters.';
    END IF;
    RETURN told;
END
$$;

-- Searches what the messages and tasks of a tenant say.
--
-- query:    words; "a phrase"; -without; one or another; begins*
-- by:       'relevance': the best first, among the latest five hundred that match; 'time': the latest first, all of them.
-- only_kind: 'message' or 'task': its description, what was said of its state, and its artifacts.
-- only_role, only_actor, only_conversation, since (included), until (excluded): null means all.
-- query_language: the query is in this language, as "pt" or "en-US"; null tries all that the tenant's documents have.
-- page:     at most so many rows.
-- after:    the cursor of the last row of the page before.
-- opening, closing: what marks in the snippets what was found.
--
-- searched: the query that was searched for: the given one, or that with its misspelt words corrected, where the
--           given one finds nothing.
CREATE FUNCTION search_for(
    query text, tenant text, by text DEFAULT 'relevance', only_kind text DEFAULT NULL, only_role text DEFAULT NULL,
    only_actor text DEFAULT NULL, only_conversation uuid DEFAULT NULL, since timestamptz DEFAULT NULL,
    until timestamptz DEFAULT NULL, query_language text DEFAULT NULL, page integer DEFAULT 20, after text DEFAULT NULL,
    opening text DEFAULT '«', closing text DEFAULT '»'
) RETURNS TABLE (
    kind text, id uuid, conversation_id uuid, version integer, "position" bigint, role text, actor text,
    created_at timestamptz, language text, rank real, snippet text, searched text, cursor text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT SET client_min_messages = warning AS $$
#variable_conflict use_column
DECLARE
    languages text[] := CASE WHEN query_language IS NULL THEN search_languages(tenant)
                             ELSE ARRAY[search_language_named(query_language), 'und'] END;
    -- A cursor is of use in the same search alone.
    search    CONSTANT text := left(by, 1) || hashtextextended(concat_ws(E'\x01', query, tenant, by, only_kind,
                                   only_role, only_actor, only_conversation::text, extract(epoch FROM since)::text,
                                   extract(epoch FROM until)::text, query_language), 0);
    told      json;
    up_to     bigint;
    used      text := query;
    queries   tsquery[];
    found     search_found[];
BEGIN
    IF by IS NULL OR by NOT IN ('relevance', 'time') THEN
        RAISE EXCEPTION 'by: % is unknown', quote_nullable(by) USING ERRCODE = 'ES005', HINT = 'Say relevance or time.';
    ELSIF only_kind NOT IN ('message', 'task') THEN
        RAISE EXCEPTION 'kind: % is unknown', quote_nullable(only_kind)
            USING ERRCODE = 'ES005', HINT = 'Say message or task.';
    ELSIF languages[1] IS NULL THEN
        RAISE EXCEPTION 'language: % is none that can be searched', quote_nullable(query_language)
            USING ERRCODE = 'ES005', HINT = 'Give the code of a language, such as pt or en-US.';
    ELSIF page IS NULL OR page NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'page: % is not between 1 and 1000', coalesce(page::text, 'null') USING ERRCODE = 'ES005';
    END IF;
    IF after IS NOT NULL THEN
        told := search_resumed(after, search);
        up_to := told ->> 1;
        used := told ->> 2;
    ELSE
        up_to := last_position();
    END IF;
    LOOP
        queries := ARRAY(SELECT search_query(used, l.language) FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                          ORDER BY l.n);
        found := search_page(by, languages, queries, tenant, only_conversation, only_kind, only_role, only_actor,
                             coalesce(since, '-infinity'), coalesce(until, 'infinity'), up_to, told, page);
        EXIT WHEN cardinality(found) > 0 OR told IS NOT NULL OR used <> query;
        used := search_corrected(query, languages, tenant, up_to);
        EXIT WHEN used IS NULL;
    END LOOP;
    RETURN QUERY
    SELECT f.kind, f.id, f.conversation_id, f.version, f.position, f.role, f.actor, f.created_at, f.language, f.rank,
           search_snippet(search_text(e.event_type, e.content), search_query(used, f.language, true), f.language,
                          opening, closing),
           used,
           search_cursor(search, up_to, used,
                         CASE by WHEN 'time' THEN to_char(f.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USOF') ELSE f.rank::text END,
                         f.position)
      FROM unnest(found) WITH ORDINALITY AS f (conversation_id, version, "position", kind, id, role, actor, created_at,
                                               language, rank, n)
      LEFT JOIN events e
        ON e.tenant_id = search_for.tenant AND e.conversation_id = f.conversation_id AND e.version = f.version
     ORDER BY f.n;
END
$$;

-- Only search_for may be called by others; what it calls would let one look past the tenant.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid
          FROM pg_proc p
         WHERE p.pronamespace = current_schema()::regnamespace
           AND p.proname IN ('search_languages', 'search_look', 'search_latest', 'search_meant', 'search_corrected', 'search_page',
                             'search_is_short', 'search_for')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
        PERFORM eventstore_grant(format('EXECUTE ON FUNCTION %s', f), 'eventstore_search');
    END LOOP;
END
$$;

SELECT eventstore_grant(format('EXECUTE ON FUNCTION %s', p.oid::regprocedure), 'eventstore_app')
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname = 'search_for';
SELECT eventstore_grant(format('SELECT ON TABLE %I', t), 'eventstore_search')
  FROM unnest(ARRAY['search_documents', 'search_conversations', 'events']) AS t;

SELECT eventstore_own(format('FUNCTION %s', p.oid::regprocedure))
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN (
           'search_word',
           'search_units',
           'search_prefix',
           'search_unit',
           'search_query',
           'search_languages',
           'search_look',
           'search_latest',
           'search_asked',
           'search_marked',
           'search_snippet',
           'search_variants',
           'search_meant',
           'search_corrected',
           'search_page',
           'search_is_short',
           'search_cursor',
           'search_resumed'
       );
SELECT eventstore_own('TYPE search_found');

-- The owner of search_for is the role that may see every tenant's documents; it may make nothing in the schema, save
-- for the moment in which it takes the function over.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'eventstore_search') THEN
        EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO eventstore_search', current_schema());
        EXECUTE (SELECT format('ALTER FUNCTION %s OWNER TO eventstore_search', p.oid::regprocedure)
                   FROM pg_proc p
                  WHERE p.pronamespace = current_schema()::regnamespace
                    AND p.proname = 'search_for');
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM eventstore_search', current_schema());
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not hand search_for to eventstore_search', session_user;
END
$$;

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid
          FROM pg_proc p
         WHERE p.pronamespace = current_schema()::regnamespace
           AND p.proname IN (
           'search_word',
           'search_units',
           'search_prefix',
           'search_unit',
           'search_query',
           'search_languages',
           'search_look',
           'search_latest',
           'search_asked',
           'search_marked',
           'search_snippet',
           'search_variants',
           'search_meant',
           'search_corrected',
           'search_page',
           'search_is_short',
           'search_cursor',
           'search_resumed',
           'search_for'
           )
         ORDER BY p.oid DESC  -- a function that is written as one statement is bound to what it calls
    LOOP
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END
$$;
DROP TYPE search_found;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'eventstore_search') THEN
        BEGIN
            REVOKE ALL ON TABLE events, search_documents, search_conversations FROM eventstore_search;
            EXECUTE format('REVOKE ALL ON SCHEMA %I FROM eventstore_search', current_schema());
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'grants to eventstore_search stay: %', SQLERRM;
        END;
        BEGIN
            DROP ROLE eventstore_search;
        EXCEPTION
            WHEN dependent_objects_still_exist OR insufficient_privilege OR undefined_object OR object_in_use THEN
                RAISE NOTICE 'role eventstore_search stays: %', SQLERRM;
        END;
    END IF;
END
$$;
