-- Times from the first unanswered message of a user to the next message of an assistant in the conversation, in
-- seconds, by the day of the question; in one row ("all"), or by day or actor. The actor is the one who answers;
-- unanswered questions have none. An answer whose time is before that of the question counts as answered and as
-- unmeasured.
CREATE FUNCTION statistics_response_times(
    tenant text, since date DEFAULT NULL, until date DEFAULT NULL, of_actor text DEFAULT NULL, zone text DEFAULT 'UTC',
    "by" text DEFAULT 'all'
) RETURNS TABLE (key text, questions bigint, answered bigint, unmeasured bigint, average float8, median float8,
                 p95 float8, longest float8)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan SET jit = off SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    IF "by" NOT IN ('all', 'day', 'actor') THEN
        RAISE EXCEPTION 'response times cannot be grouped by %: choose among all, day, actor', "by"
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
    SELECT CASE "by" WHEN 'day' THEN coalesce(statistics_day(q.asked_at, zone)::text, 'undated') WHEN 'actor' THEN q.actor ELSE 'all' END,
           count(*),
           count(q.seconds),
           count(*) FILTER (WHERE q.seconds < 0),
           avg(q.seconds) FILTER (WHERE q.seconds >= 0),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY q.seconds) FILTER (WHERE q.seconds >= 0),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY q.seconds) FILTER (WHERE q.seconds >= 0),
           max(q.seconds) FILTER (WHERE q.seconds >= 0)
      FROM (SELECT a.asked_at, a.actor, extract(epoch FROM a.answered_at - a.asked_at)::float8 AS seconds
              FROM statistics_answers a
             WHERE a.tenant_id = tenant
               AND a.asked_at >= first AND a.asked_at < last
               AND (a.actor = of_actor OR of_actor IS NULL)
             UNION ALL
            SELECT c.asked_at, NULL, NULL
              FROM statistics_conversations c
             WHERE c.tenant_id = tenant
               AND c.asked_at >= first AND c.asked_at < last
               AND of_actor IS NULL
               AND "by" <> 'actor') AS q
     GROUP BY 1
     ORDER BY CASE WHEN "by" = 'actor' THEN -count(*) END, 1;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_response_times');
REVOKE ALL ON FUNCTION statistics_response_times FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION statistics_response_times', 'eventstore_reader');
