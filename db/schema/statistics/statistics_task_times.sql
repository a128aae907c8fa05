-- Return, by status, the number of tasks in it; if it is final, the seconds from the creation of a task until it
-- entered the status; the number of ended stays in it and their seconds. Stays that end before they begin count as
-- unmeasured.
CREATE FUNCTION statistics_task_times(
    tenant text, since date DEFAULT NULL, until date DEFAULT NULL, of_actor text DEFAULT NULL, zone text DEFAULT 'UTC'
) RETURNS TABLE (status text, is_final boolean, tasks bigint, unmeasured bigint, average float8, median float8,
                 p95 float8, stays bigint, unmeasured_stays bigint, average_stay float8, median_stay float8,
                 p95_stay float8)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan SET jit = off SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT s.status::text, s.status IN ('completed', 'canceled', 'failed', 'rejected'),
           count(*) FILTER (WHERE s.is_task),
           count(*) FILTER (WHERE s.total < 0),
           avg(s.total) FILTER (WHERE s.total >= 0),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY s.total) FILTER (WHERE s.total >= 0),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY s.total) FILTER (WHERE s.total >= 0),
           count(*) FILTER (WHERE NOT s.is_task),
           count(*) FILTER (WHERE s.stay < 0),
           avg(s.stay) FILTER (WHERE s.stay >= 0),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY s.stay) FILTER (WHERE s.stay >= 0),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY s.stay) FILTER (WHERE s.stay >= 0)
      FROM (SELECT t.status, true AS is_task, NULL::float8 AS stay,
                   CASE WHEN t.status IN ('completed', 'canceled', 'failed', 'rejected')
                        THEN extract(epoch FROM t.entered_at - t.created_at)::float8
                   END AS total
              FROM statistics_tasks t
             WHERE t.tenant_id = tenant
               AND t.created_at >= first AND t.created_at < last
               AND (t.actor = of_actor OR of_actor IS NULL)
             UNION ALL
            SELECT w.status, false, extract(epoch FROM w.left_at - w.entered_at)::float8, NULL
              FROM statistics_tasks t
              JOIN statistics_status_periods w
                ON w.tenant_id = t.tenant_id
               AND w.conversation_id = t.conversation_id
               AND w.task_id = t.task_id
             WHERE t.tenant_id = tenant
               AND t.created_at >= first AND t.created_at < last
               AND (t.actor = of_actor OR of_actor IS NULL)) AS s
     GROUP BY s.status
     ORDER BY 3 DESC, 1;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_task_times');
REVOKE ALL ON FUNCTION statistics_task_times FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION statistics_task_times', 'eventstore_reader');
