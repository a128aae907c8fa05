-- The present statuses of the conversations begun, and of the tasks created, in a period.
CREATE FUNCTION statistics_by_status(
    tenant text, since date DEFAULT NULL, until date DEFAULT NULL, of_actor text DEFAULT NULL, zone text DEFAULT 'UTC'
) RETURNS TABLE (kind text, status text, number bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan SET jit = off SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT 'conversation', CASE WHEN c.is_deleted THEN 'deleted' WHEN c.is_active THEN 'active' ELSE 'archived' END,
           count(*)
      FROM statistics_conversations c
     WHERE c.tenant_id = tenant
       AND c.began_at >= first AND c.began_at < last
       AND (c.actor = of_actor OR of_actor IS NULL)
     GROUP BY 2
     UNION ALL
    SELECT 'task', t.status::text, count(*)
      FROM statistics_tasks t
     WHERE t.tenant_id = tenant
       AND t.created_at >= first AND t.created_at < last
       AND (t.actor = of_actor OR of_actor IS NULL)
     GROUP BY 2
     ORDER BY 1, 3 DESC, 2;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_by_status');
REVOKE ALL ON FUNCTION statistics_by_status FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION statistics_by_status', 'eventstore_reader');
