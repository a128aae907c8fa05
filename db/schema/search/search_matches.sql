-- Find documents by one of four strategies, the latest first. Each has its own plan, made for these values: the
-- settings, and conditions in a form that no index matches, leave the planner no other, whatever its statistics.
--
-- words:        by the index of words: reads all matches;
-- time:         along the times: reads at most `budget` documents;
-- conversation: reads all documents of one conversation;
-- own:          reads all documents of the user's conversations, or of the given one if it is the user's.
--
-- For a user, no document is compared with the query unless the user may see it: otherwise the time of a search would
-- reveal which words occur in the others.
--
-- The rank is ts_rank normalised by length: a word counts less in a longer text.
--
-- queries: the query in each of the languages, in their order. Each document is matched in its own language.
-- index_query: the query for the index of words, with labels.
-- below:   only documents before this time or, at this time, below this position.
CREATE FUNCTION search_matches(
    strategy text, languages text[], queries tsquery[], index_query tsquery, tenant text, conversation uuid, kind text,
    role text, actor text, since timestamptz, below timestamptz, below_position bigint, budget integer,
    wanted integer
) RETURNS SETOF search_match
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
    candidates CONSTANT text := CASE strategy
        WHEN 'words' THEN 'd.words @@ $4'
        WHEN 'time' THEN 'd.tenant_id = $5 AND d.created_at >= $10 AND (d.created_at, d.position) < ($11, $12)
                           ORDER BY d.created_at DESC, d.position DESC LIMIT $13'
        WHEN 'conversation' THEN 'd.tenant_id = $5 AND d.conversation_id = $6'
        WHEN 'own' THEN 'd.tenant_id = $5 AND d.conversation_id = ANY (ARRAY(
                             SELECT m.conversation_id
                               FROM conversation_members m
                              WHERE m.tenant_id = $5 AND m.user_id = $15
                                AND ($6 IS NULL OR m.conversation_id = $6)))'
    END;
    visible CONSTANT text := CASE WHEN current_tenant_user() IS NULL OR strategy = 'own' THEN 'true'
        ELSE '(SELECT true FROM conversation_members m
                WHERE m.tenant_id = $5 AND m.conversation_id = d.conversation_id AND m.user_id = $15)'
    END;
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT f.conversation_id, f.version, f.position, f.kind::text, f.id, f.role::text, f.actor::text, f.created_at,
                f.language::text,
                (ts_rank(f.words, $3[array_position($2, f.language::text)]) / (40 + length(f.words)))::real
           FROM (SELECT %1$s
                   FROM (SELECT d.*
                           FROM (SELECT %1$s, d.tenant_id FROM search_documents d WHERE %2$s OFFSET 0) AS d
                          WHERE %3$s
                         OFFSET 0) AS d
                  WHERE d.tenant_id = $5 AND d.created_at >= $10 AND (d.created_at, d.position) < ($11, $12)
                    %4$s
                    AND ts_match_vq(d.words, $3[array_position($2, d.language::text)])
                  ORDER BY d.created_at DESC, d.position DESC LIMIT $14) AS f',
        columns, candidates, visible,
        concat(CASE WHEN kind = 'task' THEN ' AND d.kind IN (''task'', ''status'', ''artifact'')'
                    WHEN kind IS NOT NULL THEN ' AND d.kind = $7'
               END,
               CASE WHEN role IS NOT NULL THEN ' AND d.role = $8' END,
               CASE WHEN actor IS NOT NULL THEN ' AND d.actor = $9' END,
               -- One lookup for each match instead of a join of all rows; none if no conversation is deleted.
               CASE WHEN EXISTS (SELECT FROM search_conversations c WHERE c.tenant_id = tenant AND c.is_deleted) THEN
                   ' AND (SELECT c.is_deleted FROM search_conversations c
                           WHERE c.tenant_id = $5 AND c.conversation_id = d.conversation_id) IS NOT TRUE'
               END))
    USING strategy, languages, queries, index_query, tenant, conversation, kind, role, actor, since, below,
          below_position, budget, wanted, current_tenant_user();
END
$$;

SELECT eventstore_set_owner('FUNCTION search_matches');
REVOKE ALL ON FUNCTION search_matches FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_matches', 'eventstore_search');
