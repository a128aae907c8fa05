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
-- by:       'relevance': the best first, among the latest four hundred that match; 'time': the latest first, all of them.
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

SELECT eventstore_own(format('FUNCTION %s', p.oid::regprocedure))
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('search_cursor',
                     'search_resumed');

-- Only search_for may be called by others; what it calls would let one look past the tenant.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid
          FROM pg_proc p
         WHERE p.pronamespace = current_schema()::regnamespace
           AND p.proname IN ('search_languages', 'search_look', 'search_latest', 'search_sample', 'search_corrections',
                             'search_corrected', 'search_page', 'search_is_short', 'search_for')
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

DROP FUNCTION search_for;
DROP FUNCTION search_resumed;
DROP FUNCTION search_cursor;

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
        DECLARE
            f regprocedure;
        BEGIN
            FOR f IN
                SELECT p.oid FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace AND p.proname LIKE 'search\_%'
            LOOP
                EXECUTE format('REVOKE ALL ON FUNCTION %s FROM eventstore_search', f);
            END LOOP;
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
