-- Return those documents of a limited number (and four megabytes) that the filters of a search match: of those that
-- the index of words finds; if there is no query for it, of the latest of the period or, for a user or in a
-- conversation, of theirs.
CREATE FUNCTION search_sample(
    index_query tsquery, tenant text, conversation uuid, kind text, role text, actor text, since timestamptz,
    until timestamptz, budget integer
) RETURNS search_sampled[]
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    -- Of a user with more conversations, the latest documents of some of them.
    conversations CONSTANT integer := 400;
    columns       CONSTANT text :=
        'd.tenant_id, d.conversation_id, d.version, d.kind, d.role, d.actor, d.created_at, d.language, d.words';
    own           uuid[] := ARRAY[conversation];
    result        search_sampled[];
BEGIN
    IF current_tenant_user() IS NOT NULL THEN
        own := ARRAY(SELECT m.conversation_id
                       FROM conversation_members m
                      WHERE m.tenant_id = search_sample.tenant
                        AND m.user_id = current_tenant_user()
                        AND (conversation IS NULL OR m.conversation_id = conversation)
                      LIMIT conversations);
    END IF;
    EXECUTE format(
        'SELECT array_agg(ROW(s.conversation_id, s.version, s.language, s.words)::search_sampled)
           FROM (SELECT d.*, sum(pg_column_size(d.words)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
                   FROM (%s) AS d) AS s
          WHERE s.bytes <= 4000000
            AND s.tenant_id = $2
            AND s.created_at >= $7
            AND s.created_at < $8
            AND ($4 IS NULL OR s.kind = $4 OR $4 = ''task'' AND s.kind IN (''status'', ''artifact''))
            AND ($5 IS NULL OR s.role = $5)
            AND ($6 IS NULL OR s.actor = $6)
            AND (SELECT c.is_deleted
                   FROM search_conversations c
                  WHERE c.tenant_id = $2
                    AND c.conversation_id = s.conversation_id) IS NOT TRUE',
        CASE
            WHEN index_query IS NOT NULL THEN
                format('SELECT %s FROM search_documents d WHERE d.words @@ $1 LIMIT $9', columns)
            WHEN conversation IS NULL AND current_tenant_user() IS NULL THEN
                format('SELECT %s
                          FROM search_documents d
                         WHERE d.tenant_id = $2 AND d.created_at >= $7 AND d.created_at < $8
                         ORDER BY d.created_at DESC, d.position DESC
                         LIMIT $9', columns)
            ELSE
                format('SELECT latest.*
                          FROM unnest($3) AS o (conversation_id),
                               LATERAL (SELECT %s
                                          FROM search_documents d
                                         WHERE d.tenant_id = $2 AND d.conversation_id = o.conversation_id
                                         ORDER BY d.version DESC
                                         LIMIT $9 / greatest(cardinality($3), 1)) AS latest', columns)
        END)
    INTO result
    USING index_query, tenant, own, kind, role, actor, since, until, budget;
    RETURN coalesce(result, '{}');
END
$$;

SELECT eventstore_set_owner('FUNCTION search_sample');
REVOKE ALL ON FUNCTION search_sample FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_sample', 'eventstore_search');
