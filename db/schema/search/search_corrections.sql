-- The corrections of the words of a query. Corrected are the first three words of four letters or more that have no form
-- in a document that the search could return, each to a word of such documents at one edit: a likely one (search_edits)
-- if there is any, and the most frequent of these.
--
-- Words are looked for in the sample, and what it lacks by the index of words; not for a user, because the time would
-- reveal which words occur in documents of others.
CREATE FUNCTION search_corrections(
    query text, languages text[], tenant text, conversation uuid, kind text, role text, actor text, since timestamptz,
    until timestamptz
) RETURNS TABLE (ordinal integer, correction text)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    by_index CONSTANT boolean := conversation IS NULL AND current_tenant_user() IS NULL;
    labels   CONSTANT tsquery := search_label_query(tenant, kind, role, actor);
    frequent CONSTANT integer := 1000;
    sample   CONSTANT search_sampled[] := search_sample(NULL, tenant, conversation, kind, role, actor, since, until,
                                                        CASE WHEN by_index THEN frequent ELSE 5 * frequent END);
    known    text[];
    word     text;
    forms    tsquery[];
    unknown  integer := 0;
BEGIN
    FOR ordinal, word IN
        SELECT t.ordinal, t.words
          FROM search_parse_query(query) AS t
         WHERE NOT (t.negated OR t.quoted OR t.prefix)
           AND length(t.words) BETWEEN 4 AND 30
           AND t.words !~ '[0-9[:space:][:punct:]]'
         ORDER BY t.ordinal
    LOOP
        -- The word itself, and its stems in each of the languages.
        forms := ARRAY(SELECT search_exact_query(word)
                              || coalesce(string_agg(search_word_query(s.stem)::text, '|'), '')::tsquery
                         FROM unnest(languages) WITH ORDINALITY AS l (language, n)
                         LEFT JOIN LATERAL unnest(tsvector_to_array(search_stems(word, l.language))) AS s (stem)
                           ON true
                        GROUP BY l.n
                        ORDER BY l.n);
        CONTINUE WHEN EXISTS (SELECT
                                FROM unnest(sample) AS s
                               WHERE s.words @@ forms[array_position(languages, s.language)])
                   OR by_index
                      AND EXISTS (SELECT
                                    FROM unnest(search_sample(search_index_query(forms, tenant, kind, role, actor), tenant,
                                                              NULL, kind, role, actor, since, until, frequent)) AS s
                                   WHERE s.words @@ forms[array_position(languages, s.language)]);
        known := coalesce(known, ARRAY(
            SELECT DISTINCT unnest(tsvector_to_array(ts_filter(s.words, '{a}'))) FROM unnest(sample) AS s));
        correction := (
            SELECT search_spelling(f.word, (SELECT search_text(e.event_type, e.content)
                                              FROM events e
                                             WHERE e.tenant_id = search_corrections.tenant
                                               AND e.conversation_id = (f.documents[1]).conversation_id
                                               AND e.version = (f.documents[1]).version))
              FROM (SELECT c.word, c.is_likely, c.is_recent, array_agg(s) AS documents
                      FROM (SELECT e.edit AS word, e.is_likely, k.word IS NOT NULL AS is_recent
                              FROM search_edits(word) AS e
                              LEFT JOIN unnest(known) AS k (word)
                                ON k.word = e.edit
                             WHERE k.word IS NOT NULL
                                OR by_index
                                   AND EXISTS (SELECT
                                                 FROM search_documents d
                                                WHERE d.words @@ search_word_query(e.edit)
                                               OFFSET 0)
                            OFFSET 0) AS c,
                           unnest(CASE WHEN c.is_recent THEN sample
                                       ELSE search_sample(search_word_query(c.word) && labels, tenant, NULL, kind, role,
                                                          actor, since, until, frequent)
                                  END) AS s
                     WHERE s.words @@ search_exact_query(c.word)
                     GROUP BY c.word, c.is_likely, c.is_recent) AS f
             ORDER BY f.is_likely DESC, f.is_recent DESC, cardinality(f.documents) DESC, f.word
             LIMIT 1
        );
        RETURN NEXT;
        unknown := unknown + 1;
        EXIT WHEN unknown = 3;
    END LOOP;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_corrections');
REVOKE ALL ON FUNCTION search_corrections FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_corrections', 'eventstore_search');
