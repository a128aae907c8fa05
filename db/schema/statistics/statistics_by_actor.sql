-- The activity of a period by actor, those with most events first.
CREATE FUNCTION statistics_by_actor(
    tenant text, since date DEFAULT NULL, until date DEFAULT NULL, of_actor text DEFAULT NULL, zone text DEFAULT 'UTC'
) RETURNS TABLE (actor text, conversations bigint, active_conversations bigint, messages bigint, tasks bigint,
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
    SELECT d.actor::text, sum(d.conversations)::bigint, sum(d.active)::bigint, sum(d.messages)::bigint,
           sum(d.tasks)::bigint, sum(d.events)::bigint, sum(d.characters)::bigint, sum(d.bytes)::bigint
      FROM (SELECT a.actor, 0 AS conversations, 0 AS active, sum(a.messages) AS messages, 0 AS tasks,
                   sum(a.events) AS events, sum(a.characters) AS characters, sum(a.bytes) AS bytes
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)
             GROUP BY a.actor
             UNION ALL
            SELECT c.actor, 0, count(*), 0, 0, 0, 0, 0
              FROM (SELECT DISTINCT a.actor, a.conversation_id
                      FROM statistics_activity a
                     WHERE a.tenant_id = tenant
                       AND a.quarter_hour >= first AND a.quarter_hour < last
                       AND (a.actor = of_actor OR of_actor IS NULL)) AS c
             GROUP BY c.actor
             UNION ALL
            SELECT c.actor, count(*), 0, 0, 0, 0, 0, 0
              FROM statistics_conversations c
             WHERE c.tenant_id = tenant
               AND c.began_at >= first AND c.began_at < last
               AND (c.actor = of_actor OR of_actor IS NULL)
             GROUP BY c.actor
             UNION ALL
            SELECT t.actor, 0, 0, 0, count(*), 0, 0, 0
              FROM statistics_tasks t
             WHERE t.tenant_id = tenant
               AND t.created_at >= first AND t.created_at < last
               AND (t.actor = of_actor OR of_actor IS NULL)
             GROUP BY t.actor) AS d
     GROUP BY d.actor
     ORDER BY 6 DESC, 1;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_by_actor');
REVOKE ALL ON FUNCTION statistics_by_actor FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION statistics_by_actor', 'eventstore_reader');
