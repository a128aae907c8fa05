-- The corrections of the words of a query. Candidates are the first three words of four letters or more that are in no
-- document as they are typed. A word whose other form is in a document ("trains" with "train") is not misspelt.
CREATE FUNCTION search_corrections(
    query text, tenant text, conversation uuid, kind text, role text, actor text, since timestamptz, until timestamptz
) RETURNS TABLE (ordinal integer, correction text)
LANGUAGE sql STABLE
SET search_path FROM CURRENT
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
    WITH sample AS MATERIALIZED (
        SELECT s.language, s.plain_words,
               (search_corrections.kind IS NULL OR s.kind = search_corrections.kind
                OR search_corrections.kind = 'task' AND s.kind IN ('status', 'artifact'))
               AND (search_corrections.role IS NULL OR s.role = search_corrections.role)
               AND (search_corrections.actor IS NULL OR s.actor = search_corrections.actor) AS is_searched
          FROM search_sample(tenant, conversation, since, until) AS s
    ),
    vocabulary AS MATERIALIZED (
        SELECT w.word, length(w.word) AS size, count(*) FILTER (WHERE s.is_searched) AS documents
          FROM sample s, string_to_table(s.plain_words, ' ') AS w (word)
         WHERE length(w.word) BETWEEN 3 AND 31
         GROUP BY w.word
    ),
    unknown AS MATERIALIZED (
        SELECT t.ordinal, t.words AS word, length(t.words) AS size, search_edit_patterns(t.words) AS patterns
          FROM search_parse_query(query) AS t
         WHERE NOT (t.negated OR t.quoted OR t.prefix)
           AND length(t.words) BETWEEN 4 AND 30
           AND t.words !~ '[0-9[:space:][:punct:]]'
           AND t.words NOT IN (SELECT v.word FROM vocabulary v)
         ORDER BY t.ordinal
         LIMIT 3
    ),
    -- Half of the word, before or after the edit, is unchanged: that is fast to compare.
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
                  AND search_term_query(a.word, false, false, l.language) = search_term_query(a.other, false, false, l.language)
           )
     ORDER BY n.ordinal, n.documents DESC, n.correction
$$;

SELECT eventstore_set_owner('FUNCTION search_corrections');
REVOKE ALL ON FUNCTION search_corrections FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_corrections', 'eventstore_search');
