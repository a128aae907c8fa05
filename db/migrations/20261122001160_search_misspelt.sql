-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- Correcting misspelt words.
--
-- A word is corrected to a whole word of the texts that the caller may see, one edit away: a letter missing, added,
-- replaced, or two neighbours exchanged. Of several, the one in most documents is taken.
--
-- What is looked at is bounded whatever the query and however long the log: the words of the caller's latest documents
-- and three words of the query. A user's documents are reached through the conversations of which they are a member, so
-- neither the corrections nor the time they take depend on what stands in other conversations.

-- The distinct words at the beginning of a folded text, as search_documents keeps them.
CREATE FUNCTION search_plain_words(folded text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN array_to_string(tsvector_to_array(to_tsvector('pg_catalog.simple'::regconfig, left(folded, 1000))), ' ');

-- The patterns (LIKE) of all that is one edit away from a word, in any alphabet.
CREATE FUNCTION search_near(word text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT array_agg(DISTINCT p.pattern)
      FROM generate_series(0, length(search_near.word)) AS i,
           LATERAL (VALUES (left(word, i), substr(word, i + 1))) AS cut (before, behind),
           LATERAL (
               VALUES (cut.before || '_' || cut.behind),
                      (CASE WHEN cut.behind <> '' THEN cut.before || '_' || substr(cut.behind, 2) END),
                      (CASE WHEN cut.behind <> '' THEN cut.before || substr(cut.behind, 2) END),
                      (CASE WHEN length(cut.behind) > 1 THEN
                          cut.before || substr(cut.behind, 2, 1) || substr(cut.behind, 1, 1) || substr(cut.behind, 3)
                       END)
           ) AS p (pattern)
     WHERE p.pattern IS NOT NULL;
END;

-- The latest documents that the caller may see, as many as have some 30,000 words together: of the whole tenant along the
-- times; of a user, or of one conversation, the latest of each conversation, at most four hundred conversations.
CREATE FUNCTION search_sample(
    tenant text, conversation uuid, since timestamptz, until timestamptz, up_to bigint
) RETURNS TABLE (kind text, role text, actor text, language text, plain_words text)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    documents     CONSTANT integer := 2000;
    bytes         CONSTANT integer := 200000;
    conversations CONSTANT integer := 400;
    own           uuid[];
BEGIN
    IF asking_user() IS NOT NULL THEN
        own := ARRAY(SELECT m.conversation_id
                       FROM conversation_members m
                      WHERE m.tenant_id = search_sample.tenant
                        AND m.user_id = asking_user()
                        AND (conversation IS NULL OR m.conversation_id = conversation)
                      LIMIT conversations);
    ELSIF conversation IS NOT NULL THEN
        own := ARRAY[conversation];
    END IF;
    IF own = '{}' THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT s.kind::text, s.role::text, s.actor::text, s.language::text, s.plain_words
           FROM (SELECT d.*, sum(octet_length(d.plain_words)) OVER (ORDER BY d.created_at DESC, d.position DESC) AS bytes
                   FROM (%s) AS d
                  WHERE d.created_at >= $3
                    AND d.created_at < $4
                    AND d.position <= $5
                    AND (SELECT c.is_deleted
                           FROM search_conversations c
                          WHERE c.tenant_id = $1
                            AND c.conversation_id = d.conversation_id) IS NOT TRUE) AS s
          WHERE s.bytes <= $7',
        CASE WHEN own IS NULL THEN
            'SELECT d.conversation_id, d.position, d.kind, d.role, d.actor, d.created_at, d.language, d.plain_words
               FROM search_documents d
              WHERE d.tenant_id = $1 AND d.created_at >= $3 AND d.created_at < $4
              ORDER BY d.created_at DESC, d.position DESC
              LIMIT $6'
        ELSE
            'SELECT latest.*
               FROM unnest($2) AS o (conversation_id),
                    LATERAL (SELECT d.conversation_id, d.position, d.kind, d.role, d.actor, d.created_at, d.language,
                                    d.plain_words
                               FROM search_documents d
                              WHERE d.tenant_id = $1 AND d.conversation_id = o.conversation_id
                              ORDER BY d.version DESC
                              LIMIT $6 / cardinality($2)) AS latest'
        END)
    USING tenant, own, since, until, up_to, documents, bytes;
END
$$;

-- The corrections of the words of a query. Looked at are the first three that could be misspelt: four letters or more, and
-- in none of the documents as they are typed. A form of a word that is there ("trains" beside "train") is not misspelt.
CREATE FUNCTION search_corrections(
    query text, tenant text, conversation uuid, kind text, role text, actor text, since timestamptz, until timestamptz,
    up_to bigint
) RETURNS TABLE (ordinal integer, correction text)
LANGUAGE sql STABLE
SET search_path FROM CURRENT
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
    WITH sample AS MATERIALIZED (
        SELECT s.language, s.plain_words,
               (search_corrections.kind IS NULL OR (s.kind = 'message') = (search_corrections.kind = 'message'))
               AND (search_corrections.role IS NULL OR s.role = search_corrections.role)
               AND (search_corrections.actor IS NULL OR s.actor = search_corrections.actor) AS is_searched
          FROM search_sample(tenant, conversation, since, until, up_to) AS s
    ),
    vocabulary AS MATERIALIZED (
        SELECT w.word, length(w.word) AS size, count(*) FILTER (WHERE s.is_searched) AS documents
          FROM sample s, string_to_table(s.plain_words, ' ') AS w (word)
         WHERE length(w.word) BETWEEN 3 AND 31
         GROUP BY w.word
    ),
    unknown AS MATERIALIZED (
        SELECT u.ordinal, u.said AS word, length(u.said) AS size, search_near(u.said) AS patterns
          FROM search_units(query) AS u
         WHERE NOT (u.negated OR u.quoted OR u.prefix)
           AND length(u.said) BETWEEN 4 AND 30
           AND u.said !~ '[0-9[:space:][:punct:]]'
           AND u.said NOT IN (SELECT v.word FROM vocabulary v)
         ORDER BY u.ordinal
         LIMIT 3
    ),
    -- Before or behind the edit, half of the word stands as it is: that is quick to compare.
    near AS MATERIALIZED (
        SELECT u.ordinal, u.word, v.word AS correction, v.documents
          FROM unknown u
          JOIN vocabulary v
            ON v.size BETWEEN u.size - 1 AND u.size + 1
           AND (starts_with(v.word, left(u.word, u.size / 2 - 1))
                OR right(v.word, u.size - u.size / 2) = right(u.word, u.size - u.size / 2))
           AND v.word LIKE ANY (u.patterns)
         WHERE v.documents > 0
    ),
    alike AS MATERIALIZED (
        SELECT u.ordinal, u.word, v.word AS other
          FROM unknown u,
               LATERAL (SELECT v.word
                          FROM vocabulary v
                         WHERE starts_with(v.word, left(u.word, greatest(3, u.size / 2)))
                         LIMIT 20) AS v
         WHERE u.ordinal IN (SELECT n.ordinal FROM near n)
    )
    SELECT DISTINCT ON (n.ordinal) n.ordinal, n.correction
      FROM near n
     WHERE n.correction !~ '[0-9[:punct:]]'
       AND NOT EXISTS (
               SELECT
                 FROM alike a,
                      (SELECT DISTINCT r.language
                         FROM sample s,
                              unnest(CASE s.language WHEN 'und' THEN '{en,pt}' ELSE ARRAY[s.language] END) AS r (language)) AS l
                WHERE a.ordinal = n.ordinal
                  AND search_unit(a.word, false, l.language) = search_unit(a.other, false, l.language)
           )
     ORDER BY n.ordinal, n.documents DESC, n.correction
$$;

-- The query with what is misspelt in it corrected; null if nothing is.
CREATE FUNCTION search_corrected(
    query text, tenant text, conversation uuid, kind text, role text, actor text, since timestamptz, until timestamptz,
    up_to bigint
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    unit    record;
    words   text := '';
    at      integer := 0;
    changed boolean := false;
BEGIN
    FOR unit IN
        SELECT u.side, u.negated, u.quoted, u.prefix, u.said, c.correction
          FROM search_units(query) AS u
          LEFT JOIN search_corrections(query, tenant, conversation, kind, role, actor, since, until, up_to) AS c
            ON c.ordinal = u.ordinal
         ORDER BY u.ordinal
    LOOP
        changed := changed OR unit.correction IS NOT NULL;
        words := concat_ws(' ', nullif(words, ''), CASE WHEN unit.side > at THEN 'or' END,
                           CASE WHEN unit.negated THEN '-' ELSE '' END
                           || CASE WHEN unit.quoted OR unit.said ~ '\s' THEN '"' || unit.said || '"'
                                   ELSE coalesce(unit.correction, unit.said)
                              END
                           || CASE WHEN unit.prefix THEN '*' ELSE '' END);
        at := unit.side;
    END LOOP;
    RETURN CASE WHEN changed THEN words END;
END
$$;

SELECT eventstore_own(format('FUNCTION %s', p.oid::regprocedure))
  FROM pg_proc p
 WHERE p.pronamespace = current_schema()::regnamespace
   AND p.proname IN ('search_plain_words',
                     'search_near',
                     'search_sample',
                     'search_corrections',
                     'search_corrected');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION search_corrected;
DROP FUNCTION search_corrections;
DROP FUNCTION search_sample;
DROP FUNCTION search_near;
DROP FUNCTION search_plain_words;
