-- Search the messages and tasks of a tenant.
--
-- query:    words; "a phrase"; -without; one or another; begins*
-- by:       'relevance': the best first, of the latest four hundred matches; 'time': all matches, the latest first.
-- only_kind: 'message'; 'task': its description, the messages of its statuses, and its artifacts; 'status'; 'artifact';
-- 'conversation': its name. only_role,
-- only_actor, only_conversation, since (inclusive), until (exclusive): null means all. query_language: the language of
-- the query, such as "pt" or "en-US"; null tries all languages of the tenant's documents.
-- page:     the maximum number of rows.
-- after:    the cursor of the last row of the previous page.
-- opening, closing: the marks around matches in snippets.
--
-- searched: the query that was used: the given one; if that finds nothing, the one with its misspelt words corrected; if
-- neither does, one with some of the words left out.
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
    languages text[];
    -- A cursor is valid only in the same search.
    search CONSTANT text := left(by, 1) || hashtextextended(concat_ws(E'\x01', query, tenant, by, only_kind,
                                only_role, only_actor, only_conversation::text, extract(epoch FROM since)::text,
                                extract(epoch FROM until)::text, query_language), 0);
    cursor_values json;
    used          text := query;
    attempt       integer := 0;
    queries       tsquery[];
    found         record;
BEGIN
    IF tenant IS DISTINCT FROM current_tenant() THEN
        RAISE EXCEPTION 'this transaction may not search the tenant %', quote_nullable(tenant)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'SELECT set_config(''eventstore.tenant'', …, true) in the same transaction, by a login that may set it.';
    END IF;
    languages := CASE WHEN query_language IS NULL THEN search_languages(tenant)
                      ELSE ARRAY[search_language_code(query_language), 'und'] END;
    IF by IS NULL OR by NOT IN ('relevance', 'time') THEN
        RAISE EXCEPTION 'by: % is unknown', quote_nullable(by) USING ERRCODE = 'ES005', HINT = 'Use relevance or time.';
    ELSIF only_kind NOT IN ('message', 'task', 'status', 'artifact', 'conversation') THEN
        RAISE EXCEPTION 'kind: % is unknown', quote_nullable(only_kind)
            USING ERRCODE = 'ES005', HINT = 'Use message, task, status, artifact or conversation.';
    ELSIF languages[1] IS NULL THEN
        RAISE EXCEPTION 'language: % is not a language that can be searched', quote_nullable(query_language)
            USING ERRCODE = 'ES005', HINT = 'Use the code of a language, such as pt or en-US.';
    ELSIF page IS NULL OR page NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'page: % is not between 1 and 1000', coalesce(page::text, 'null') USING ERRCODE = 'ES005';
    END IF;
    IF after IS NOT NULL THEN
        cursor_values := search_cursor_values(after, search);
        used := cursor_values ->> 1;
    END IF;
    LOOP
        queries := ARRAY(SELECT search_query(used, l.language) FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                          ORDER BY l.n);
        found := search_page(by, languages, queries, tenant, only_conversation, only_kind, only_role, only_actor,
                             coalesce(since, '-infinity'), coalesce(until, 'infinity'), cursor_values, page);
        EXIT WHEN cardinality(found.matches) > 0 OR cursor_values IS NOT NULL;
        -- What finds nothing is tried with misspelt words corrected, then with some words left out.
        used := CASE attempt
                    WHEN 0 THEN search_corrected_query(query, languages, tenant, only_conversation, only_kind, only_role,
                                                 only_actor, coalesce(since, '-infinity'), coalesce(until, 'infinity'))
                    ELSE search_relaxed_query(query, attempt)
                END;
        attempt := attempt + 1;
        IF used IS NULL AND attempt = 1 THEN
            used := search_relaxed_query(query, attempt);
            attempt := attempt + 1;
        END IF;
        EXIT WHEN used IS NULL;
    END LOOP;
    RETURN QUERY
    SELECT m.kind, m.id, m.conversation_id, m.version, m.position, m.role, m.actor, m.created_at, m.language, m.rank,
           coalesce(search_snippet(search_text(e.event_type, e.content), shown.query, m.language, shown.marks, opening,
                                   closing), ''),
           used,
           search_cursor(search, used,
                         CASE by
                             WHEN 'time' THEN to_char(m.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USOF')
                             ELSE m.rank::text
                         END,
                         m.position, found.oldest, found.newest, found.newest_position)
      FROM unnest(found.matches) WITH ORDINALITY AS m (conversation_id, version, "position", kind, id, role, actor, created_at,
                                                 language, rank, n)
      LEFT JOIN events e
        ON e.tenant_id = search_for.tenant
       AND e.conversation_id = m.conversation_id
       AND e.version = m.version
      LEFT JOIN (SELECT l.language, search_query(used, l.language, true) AS query, search_highlight_terms(used, l.language) AS marks
                   FROM unnest(languages) AS l (language)
                 OFFSET 0) AS shown
        ON shown.language = m.language
     ORDER BY m.n;
END
$$;

REVOKE ALL ON FUNCTION search_for FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_for', 'eventstore_reader', 'eventstore_search');

-- eventstore_search may create nothing in the schema, except at the moment at which it becomes the owner.
DO $$
BEGIN
    IF to_regrole('eventstore_search') IS NOT NULL THEN
        EXECUTE format('GRANT CREATE ON SCHEMA %I TO eventstore_search', current_schema());
        ALTER FUNCTION search_for OWNER TO eventstore_search;
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM eventstore_search', current_schema());
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE WARNING '% may not make eventstore_search the owner of search_for', session_user;
END
$$;
