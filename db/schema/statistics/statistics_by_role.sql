-- The activity of a period, by the role of the messages.
CREATE FUNCTION statistics_by_role(
    tenant text, since date DEFAULT NULL, until date DEFAULT NULL, of_actor text DEFAULT NULL, zone text DEFAULT 'UTC'
) RETURNS TABLE (role text, conversations bigint, messages bigint, characters bigint, bytes bigint, parts bigint,
                 parts_bytes bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan SET jit = off SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT d.role::text, sum(d.conversations)::bigint, sum(d.messages)::bigint, sum(d.characters)::bigint,
           sum(d.bytes)::bigint, sum(d.parts)::bigint, sum(d.parts_bytes)::bigint
      FROM (SELECT a.role, 0 AS conversations, sum(a.messages) AS messages, sum(a.characters) AS characters,
                   sum(a.bytes) AS bytes, sum(a.parts) AS parts, sum(a.parts_bytes) AS parts_bytes
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)
               AND a.role <> ''
             GROUP BY a.role
             UNION ALL
            SELECT c.role, count(*), 0, 0, 0, 0, 0
              FROM (SELECT DISTINCT a.role, a.conversation_id
                      FROM statistics_activity a
                     WHERE a.tenant_id = tenant
                       AND a.quarter_hour >= first AND a.quarter_hour < last
                       AND (a.actor = of_actor OR of_actor IS NULL)
                       AND a.role <> '') AS c
             GROUP BY c.role) AS d
     GROUP BY d.role
     ORDER BY 3 DESC, 1;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_by_role');
REVOKE ALL ON FUNCTION statistics_by_role FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION statistics_by_role', 'eventstore_reader');
