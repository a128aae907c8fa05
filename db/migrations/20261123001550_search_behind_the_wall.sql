-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- The search behind the wall. It sees what the wall would hide, so it applies by itself what the wall does: it refuses
-- another tenant than the one that is asked for, and shows a user the conversations of which they are a member.

CREATE OR REPLACE FUNCTION search_look(
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
        WHEN 'own' THEN 'd.tenant_id = $5 AND d.conversation_id = ANY (ARRAY(SELECT m.conversation_id FROM conversation_members m
                          WHERE m.tenant_id = $5 AND m.user_id = $16))'
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
                  ORDER BY d.created_at DESC, d.position DESC LIMIT $15) AS f',
        columns, first,
        concat(CASE WHEN kind IS NOT NULL THEN ' AND (d.kind = ''message'') = ($7 = ''message'')' END,
               CASE WHEN role IS NOT NULL THEN ' AND d.role = $8' END,
               CASE WHEN actor IS NOT NULL THEN ' AND d.actor = $9' END,
               -- One look for each that is found, and never a join of the whole; none where nothing is hidden.
               CASE WHEN EXISTS (SELECT FROM search_conversations c WHERE c.tenant_id = tenant AND c.is_deleted) THEN
                   ' AND (SELECT c.is_deleted FROM search_conversations c
                           WHERE c.tenant_id = $5 AND c.conversation_id = d.conversation_id) IS NOT TRUE'
               END,
               CASE WHEN asking_user() IS NOT NULL THEN
                   ' AND (SELECT true FROM conversation_members m
                           WHERE m.tenant_id = $5 AND m.conversation_id = d.conversation_id AND m.user_id = $16)'
               END))
    USING way, languages, queries, asked, tenant, conversation, kind, role, actor, since, below, below_position, up_to,
          budget, wanted, asking_user();
END
$$;

CREATE OR REPLACE FUNCTION search_latest(
    languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, below timestamptz, below_position bigint, up_to bigint, wanted integer
) RETURNS search_found[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    sample CONSTANT integer := 2000;
    asked  tsquery := search_asked(queries, tenant, kind, role, actor);
    way    text := CASE WHEN conversation IS NULL THEN 'time' ELSE 'conversation' END;
    budget integer := sample;
    found  search_found[];
    rows   real := pg_relation_size('search_documents') / 500;
    share  real;
    -- A user who has so few conversations has few documents: these are read, and none of anybody else's.
    few    CONSTANT integer := 200;
BEGIN
    IF numnode(asked) = 0 THEN
        RETURN ARRAY[]::search_found[];
    END IF;
    IF way = 'time' AND asking_user() IS NOT NULL
       AND (SELECT count(*)
              FROM (SELECT
                      FROM conversation_members m
                     WHERE m.tenant_id = search_latest.tenant AND m.user_id = asking_user()
                     LIMIT few + 1) AS m) <= few THEN
        way := 'own';
    END IF;
    LOOP
        found := ARRAY(SELECT f FROM search_look(way, languages, queries, asked, tenant, conversation, kind, role, actor, since,
                                                 below, below_position, up_to, budget, wanted) AS f);
        IF cardinality(found) >= wanted OR way <> 'time' OR search_is_short(tenant, since, below, below_position, budget) THEN
            RETURN found;
        END IF;
        way := 'words';
        share := cardinality(found)::real / sample;
        IF budget = sample AND cardinality(found) > 2 THEN
            IF wanted / share < share * rows * 8 THEN
                way := 'time';
                budget := 2 * wanted / share;
            END IF;
        END IF;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION search_for(
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
    languages text[];
    -- A cursor is of use in the same search alone.
    search    CONSTANT text := left(by, 1) || hashtextextended(concat_ws(E'\x01', query, tenant, by, only_kind,
                                   only_role, only_actor, only_conversation::text, extract(epoch FROM since)::text,
                                   extract(epoch FROM until)::text, query_language), 0);
    told      json;
    up_to     bigint;
    used      text := query;
    queries   tsquery[];
    shown     tsquery[];
    found     search_found[];
BEGIN
    IF tenant IS DISTINCT FROM asking_tenant() THEN
        RAISE EXCEPTION 'this transaction does not ask for the tenant %', quote_nullable(tenant)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, by a login that may choose.';
    END IF;
    languages := CASE WHEN query_language IS NULL THEN search_languages(tenant)
                      ELSE ARRAY[search_language_named(query_language), 'und'] END;
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
        used := search_corrected(query, tenant, only_conversation, only_kind, only_role, only_actor,
                                 coalesce(since, '-infinity'), coalesce(until, 'infinity'), up_to);
        EXIT WHEN used IS NULL;
    END LOOP;
    shown := ARRAY(SELECT search_query(used, l.language, true) FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                    ORDER BY l.n);
    RETURN QUERY
    SELECT f.kind, f.id, f.conversation_id, f.version, f.position, f.role, f.actor, f.created_at, f.language, f.rank,
           search_snippet(search_text(e.event_type, e.content), shown[array_position(languages, f.language)], f.language,
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

SELECT eventstore_grant('SELECT ON TABLE conversation_members', 'eventstore_search');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'eventstore_search') THEN
        REVOKE ALL ON TABLE conversation_members FROM eventstore_search;
    END IF;
END
$$;

-- As they were before.
CREATE OR REPLACE FUNCTION search_for(
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
    shown     tsquery[];
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
        used := search_corrected(query, tenant, only_conversation, only_kind, only_role, only_actor,
                                 coalesce(since, '-infinity'), coalesce(until, 'infinity'), up_to);
        EXIT WHEN used IS NULL;
    END LOOP;
    shown := ARRAY(SELECT search_query(used, l.language, true) FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                    ORDER BY l.n);
    RETURN QUERY
    SELECT f.kind, f.id, f.conversation_id, f.version, f.position, f.role, f.actor, f.created_at, f.language, f.rank,
           search_snippet(search_text(e.event_type, e.content), shown[array_position(languages, f.language)], f.language,
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

CREATE OR REPLACE FUNCTION search_latest(
    languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, below timestamptz, below_position bigint, up_to bigint, wanted integer
) RETURNS search_found[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    sample CONSTANT integer := 2000;
    asked  tsquery := search_asked(queries, tenant, kind, role, actor);
    way    text := CASE WHEN conversation IS NULL THEN 'time' ELSE 'conversation' END;
    budget integer := sample;
    found  search_found[];
    rows   real := pg_relation_size('search_documents') / 500;
    share  real;
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
        way := 'words';
        share := cardinality(found)::real / sample;
        IF budget = sample AND cardinality(found) > 2 THEN
            IF wanted / share < share * rows * 8 THEN
                way := 'time';
                budget := 2 * wanted / share;
            END IF;
        END IF;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION search_look(
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
                  ORDER BY d.created_at DESC, d.position DESC LIMIT $15) AS f',
        columns, first,
        concat(CASE WHEN kind IS NOT NULL THEN ' AND (d.kind = ''message'') = ($7 = ''message'')' END,
               CASE WHEN role IS NOT NULL THEN ' AND d.role = $8' END,
               CASE WHEN actor IS NOT NULL THEN ' AND d.actor = $9' END,
               -- One look for each that is found, and never a join of the whole; none where nothing is hidden.
               CASE WHEN EXISTS (SELECT FROM search_conversations c WHERE c.tenant_id = tenant AND c.is_deleted) THEN
                   ' AND (SELECT c.is_deleted FROM search_conversations c
                           WHERE c.tenant_id = $5 AND c.conversation_id = d.conversation_id) IS NOT TRUE'
               END))
    USING way, languages, queries, asked, tenant, conversation, kind, role, actor, since, below, below_position, up_to,
          budget, wanted;
END
$$;
