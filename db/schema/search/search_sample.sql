-- The latest documents that the caller may see, up to about 30,000 words: of the whole tenant along the times; of a
-- user or of one conversation, the latest of each conversation, of at most four hundred conversations.
CREATE FUNCTION search_sample(
    tenant text, conversation uuid, since timestamptz, until timestamptz
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
    IF current_tenant_user() IS NOT NULL THEN
        own := ARRAY(SELECT m.conversation_id
                       FROM conversation_members m
                      WHERE m.tenant_id = search_sample.tenant
                        AND m.user_id = current_tenant_user()
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
                    AND (SELECT c.is_deleted
                           FROM search_conversations c
                          WHERE c.tenant_id = $1
                            AND c.conversation_id = d.conversation_id) IS NOT TRUE) AS s
          WHERE s.bytes <= $6',
        CASE WHEN own IS NULL THEN
            'SELECT d.conversation_id, d.position, d.kind, d.role, d.actor, d.created_at, d.language, d.plain_words
               FROM search_documents d
              WHERE d.tenant_id = $1 AND d.created_at >= $3 AND d.created_at < $4
              ORDER BY d.created_at DESC, d.position DESC
              LIMIT $5'
        ELSE
            'SELECT latest.*
               FROM unnest($2) AS o (conversation_id),
                    LATERAL (SELECT d.conversation_id, d.position, d.kind, d.role, d.actor, d.created_at, d.language,
                                    d.plain_words
                               FROM search_documents d
                              WHERE d.tenant_id = $1 AND d.conversation_id = o.conversation_id
                              ORDER BY d.version DESC
                              LIMIT $5 / cardinality($2)) AS latest'
        END)
    USING tenant, own, since, until, documents, bytes;
END
$$;

SELECT eventstore_set_owner('FUNCTION search_sample');
REVOKE ALL ON FUNCTION search_sample FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_sample', 'eventstore_search');
