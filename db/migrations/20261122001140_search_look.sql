-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

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

-- What the index of words is asked for: the query in every language, and the labels (see search_labels).
CREATE FUNCTION search_asked(queries tsquery[], tenant text, kind text, role text, actor text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    asked   tsquery := '';
    reading tsquery;
    labels  text[];
BEGIN
    FOR reading IN SELECT DISTINCT q FROM unnest(queries) AS q WHERE numnode(q) > 0 LOOP
        asked := asked || reading;
    END LOOP;
    IF numnode(asked) = 0 THEN
        RETURN asked;
    END IF;
    labels := search_labels(tenant, role, actor);
    IF role IS NULL AND actor IS NULL AND kind IS DISTINCT FROM 'task' THEN
        RETURN asked && search_word(labels[1]);
    END IF;
    -- These name the tenant too.
    IF role IS NOT NULL OR kind = 'task' THEN
        asked := asked && search_word(labels[2]);
    END IF;
    IF actor IS NOT NULL THEN
        asked := asked && search_word(labels[3]);
    END IF;
    RETURN asked;
END
$$;

-- Whether there are at most so many documents in a range of time. Like all that reads the tables it finds them by name
-- when it runs: a rebuild puts other tables in their place.
CREATE FUNCTION search_is_short(tenant text, since timestamptz, below timestamptz, below_position bigint, budget integer)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off SET jit = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT
          FROM search_documents d
         WHERE d.tenant_id = search_is_short.tenant
           AND d.created_at >= search_is_short.since
           AND (d.created_at, d.position) < (search_is_short.below, search_is_short.below_position)
         ORDER BY d.created_at DESC, d.position DESC
        OFFSET search_is_short.budget
    );
END
$$;

-- The latest that match, in the way that is cheaper: words that are in many documents are soon found along the times,
-- those that are in few in their index. How many it is, the last two thousand documents tell; statistics, which may be
-- missing or old, are not asked. To read a row that the index names costs as much as to look at eight along the times,
-- which lie together.
CREATE FUNCTION search_latest(
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

-- The documents of one page. `told` is what the cursor says, null for the first page.
CREATE FUNCTION search_page(
    by text, languages text[], queries tsquery[], tenant text, conversation uuid, kind text, role text, actor text,
    since timestamptz, until timestamptz, up_to bigint, told json, page integer
) RETURNS search_found[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    best  CONSTANT integer := 400;
    found search_found[];
BEGIN
    IF by = 'time' THEN
        RETURN search_latest(languages, queries, tenant, conversation, kind, role, actor, since,
                             coalesce((told ->> 3)::timestamptz, until), coalesce((told ->> 4)::bigint, 0), up_to, page);
    END IF;
    -- Called by itself: within the query below the planner would call it too, to know how long the array is.
    found := search_latest(languages, queries, tenant, conversation, kind, role, actor, since, until, 0, up_to,
                           greatest(best, page));
    RETURN ARRAY(
        SELECT f
          FROM unnest(found) AS f
         WHERE told IS NULL OR (f.rank, f.position) < ((told ->> 3)::real, (told ->> 4)::bigint)
         ORDER BY f.rank DESC, f.position DESC
         LIMIT page
    );
END
$$;

SELECT eventstore_own(format('FUNCTION %s', p.oid::regprocedure))
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('search_look',
                     'search_asked',
                     'search_is_short',
                     'search_latest',
                     'search_page');

SELECT eventstore_own('TYPE search_found');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION search_page;
DROP FUNCTION search_latest;
DROP FUNCTION search_is_short;
DROP FUNCTION search_asked;
DROP FUNCTION search_look;
DROP TYPE search_found;
