-- Conversations begun, tasks created and activity on each day, with the number of active conversations; after all days,
-- under null, what is undated (statistics_day).
CREATE FUNCTION statistics_by_day(
    tenant text, since date DEFAULT NULL, until date DEFAULT NULL, of_actor text DEFAULT NULL, zone text DEFAULT 'UTC'
) RETURNS TABLE (day date, conversations bigint, active_conversations bigint, messages bigint, tasks bigint,
                 events bigint, characters bigint, bytes bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan SET jit = off SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT d.day, sum(d.conversations)::bigint, sum(d.active)::bigint, sum(d.messages)::bigint, sum(d.tasks)::bigint,
           sum(d.events)::bigint, sum(d.characters)::bigint, sum(d.bytes)::bigint
      FROM (SELECT statistics_day(a.quarter_hour, zone) AS day, 0 AS conversations, 0 AS active,
                   sum(a.messages) AS messages, 0 AS tasks, sum(a.events) AS events,
                   sum(a.characters) AS characters, sum(a.bytes) AS bytes
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)
             GROUP BY 1
             UNION ALL
            SELECT c.day, 0, count(*), 0, 0, 0, 0, 0
              FROM (SELECT DISTINCT statistics_day(a.quarter_hour, zone) AS day, a.conversation_id
                      FROM statistics_activity a
                     WHERE a.tenant_id = tenant
                       AND a.quarter_hour >= first AND a.quarter_hour < last
                       AND (a.actor = of_actor OR of_actor IS NULL)) AS c
             GROUP BY c.day
             UNION ALL
            SELECT statistics_day(c.began_at, zone), count(*), 0, 0, 0, 0, 0, 0
              FROM statistics_conversations c
             WHERE c.tenant_id = tenant
               AND c.began_at >= first AND c.began_at < last
               AND (c.actor = of_actor OR of_actor IS NULL)
             GROUP BY 1
             UNION ALL
            SELECT statistics_day(t.created_at, zone), 0, 0, 0, count(*), 0, 0, 0
              FROM statistics_tasks t
             WHERE t.tenant_id = tenant
               AND t.created_at >= first AND t.created_at < last
               AND (t.actor = of_actor OR of_actor IS NULL)
             GROUP BY 1) AS d
     GROUP BY d.day
     ORDER BY d.day;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_by_day');
REVOKE ALL ON FUNCTION statistics_by_day FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION statistics_by_day', 'eventstore_reader');
