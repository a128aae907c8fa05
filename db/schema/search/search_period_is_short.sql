-- Return whether a period has at most so many documents. Like all functions that read the tables, it looks them up
-- by name when it runs: a rebuild replaces them.
CREATE FUNCTION search_period_is_short(tenant text, since timestamptz, below timestamptz, below_position bigint, budget integer)
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
         WHERE d.tenant_id = search_period_is_short.tenant
           AND d.created_at >= search_period_is_short.since
           AND (d.created_at, d.position) < (search_period_is_short.below, search_period_is_short.below_position)
         ORDER BY d.created_at DESC, d.position DESC
        OFFSET search_period_is_short.budget
    );
END
$$;

SELECT eventstore_set_owner('FUNCTION search_period_is_short');
REVOKE ALL ON FUNCTION search_period_is_short FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION search_period_is_short', 'eventstore_search');
