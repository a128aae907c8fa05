-- migrate:up

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

-- file: statistics/statistics_activity.sql
-- Activity of each conversation by quarter of an hour, filled by the projection statistics
-- (projections/statistics.sql). Conversations share no row, so workers never wait for each other and each conversation
-- can be compared alone; the statistics functions compute totals.
--
-- The days of all time zones in use begin on a quarter of an hour. If a time leads the primary key, the functions also
-- find a period by it: a second index would double the cost of each insert.
CREATE TABLE statistics_activity (
    conversation_id  uuid NOT NULL,
    tenant_id        varchar(255) COLLATE "C" NOT NULL,
    quarter_hour     timestamptz NOT NULL,
    role             varchar(50) COLLATE "C" NOT NULL,
    actor            varchar(255) COLLATE "C" NOT NULL,
    events           bigint NOT NULL,
    messages         bigint NOT NULL,
    characters       bigint NOT NULL,
    bytes            bigint NOT NULL,
    parts            bigint NOT NULL,
    parts_bytes      bigint NOT NULL,
    artifacts        bigint NOT NULL,
    artifact_bytes   bigint NOT NULL,
    largest_text     integer NOT NULL,
    largest_parts    integer NOT NULL,
    largest_artifact integer NOT NULL,
    CONSTRAINT statistics_activity_pkey PRIMARY KEY (tenant_id, quarter_hour, conversation_id, role, actor)
) WITH (fillfactor = 80);

  -- leaves room for the next version of a counter on its page (HOT): then no index is written
COMMENT ON COLUMN statistics_activity.quarter_hour IS 'Beginning of the quarter of an hour';
COMMENT ON COLUMN statistics_activity.role IS 'Role of the messages; empty for all other events';
COMMENT ON COLUMN statistics_activity.bytes IS 'Size of the text of the messages, in UTF-8';
COMMENT ON COLUMN statistics_activity.parts_bytes IS 'Size of the parts of the messages, as JSON';
COMMENT ON COLUMN statistics_activity.artifacts IS
    'Chunks of artifacts of tasks; artifact_bytes is the size of their parts, as JSON';
COMMENT ON COLUMN statistics_activity.largest_text IS
    'Bytes of the largest text of a message; likewise for parts and artifact';

SELECT eventstore_set_owner('TABLE statistics_activity');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_activity',
                        'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_activity', 'eventstore_reader');
SELECT enable_rls('statistics_activity');

-- file: statistics/statistics_conversations.sql
-- The conversations, with the question of each that awaits an answer.
CREATE TABLE statistics_conversations (
    conversation_id  uuid NOT NULL,
    tenant_id        varchar(255) COLLATE "C" NOT NULL,
    began_at         timestamptz NOT NULL,
    asked_at         timestamptz,
    question_version integer,
    is_active        boolean NOT NULL,
    is_deleted       boolean NOT NULL,
    actor            varchar(255) COLLATE "C" NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX idx_statistics_conversations_began_at ON statistics_conversations (tenant_id, began_at);

-- Created last: see the table conversations.
ALTER TABLE statistics_conversations ADD CONSTRAINT statistics_conversations_pkey PRIMARY KEY (tenant_id, conversation_id);

COMMENT ON COLUMN statistics_conversations.question_version IS 'Oldest unanswered message of a user';

SELECT eventstore_set_owner('TABLE statistics_conversations');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_conversations',
                        'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_conversations', 'eventstore_reader');
SELECT enable_rls('statistics_conversations');

-- file: statistics/statistics_answers.sql
-- Answers of assistants to users, the first after each run of questions.
CREATE TABLE statistics_answers (
    conversation_id  uuid NOT NULL,
    tenant_id        varchar(255) COLLATE "C" NOT NULL,
    version          integer NOT NULL,
    question_version integer NOT NULL,
    asked_at         timestamptz NOT NULL,
    answered_at      timestamptz NOT NULL,
    actor            varchar(255) COLLATE "C" NOT NULL,
    CONSTRAINT statistics_answers_pkey PRIMARY KEY (tenant_id, asked_at, conversation_id, version)
);

COMMENT ON TABLE statistics_answers IS
    'Messages of assistants that answer users: the first after each run of questions';

SELECT eventstore_set_owner('TABLE statistics_answers');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_answers', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_answers', 'eventstore_reader');
SELECT enable_rls('statistics_answers');

-- file: statistics/statistics_tasks.sql
-- The tasks, with the status that each has.
CREATE TABLE statistics_tasks (
    task_id         uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL,
    entered_at      timestamptz NOT NULL,
    version         integer NOT NULL,
    status          varchar(50) COLLATE "C" NOT NULL,
    actor           varchar(255) COLLATE "C" NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX idx_statistics_tasks_created_at ON statistics_tasks (tenant_id, created_at);

-- Created last: see the table conversations.
ALTER TABLE statistics_tasks ADD CONSTRAINT statistics_tasks_pkey PRIMARY KEY (tenant_id, conversation_id, task_id);

COMMENT ON COLUMN statistics_tasks.entered_at IS 'When the task entered its status; version is that of the event';
COMMENT ON COLUMN statistics_tasks.actor IS 'Actor of the first event of the task';

SELECT eventstore_set_owner('TABLE statistics_tasks');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_tasks', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_tasks', 'eventstore_reader');
SELECT enable_rls('statistics_tasks');

-- file: statistics/statistics_status_periods.sql
-- The time that each task spent in a status that it has left.
CREATE TABLE statistics_status_periods (
    task_id         uuid NOT NULL,
    conversation_id uuid NOT NULL,
    tenant_id       varchar(255) COLLATE "C" NOT NULL,
    entered_at      timestamptz NOT NULL,
    left_at         timestamptz NOT NULL,
    version         integer NOT NULL,
    status          varchar(50) COLLATE "C" NOT NULL,
    CONSTRAINT statistics_status_periods_pkey PRIMARY KEY (tenant_id, conversation_id, task_id, version)
);

COMMENT ON TABLE statistics_status_periods IS 'Time that a task spent in a status that it has left';

SELECT eventstore_set_owner('TABLE statistics_status_periods');
SELECT eventstore_grant('SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLE statistics_status_periods', 'eventstore_projector');
SELECT eventstore_grant('SELECT ON TABLE statistics_status_periods', 'eventstore_reader');
SELECT enable_rls('statistics_status_periods');

-- file: statistics/statistics_day.sql
-- The day of a time; null if the time is undated. Programs write the first day of the calendar, or the last year that
-- they know, for a time that they do not have.
CREATE FUNCTION statistics_day(moment timestamptz, zone text) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN moment >= '0001-01-03 00:00+00' AND moment < '9999-01-01 00:00+00'
            THEN (moment AT TIME ZONE zone)::date
       END;

SELECT eventstore_set_owner('FUNCTION statistics_day');

-- file: statistics/statistics_midnight.sql
-- The beginning of a day; null for null. It is an error if the zone is unknown, or if its days do not begin on a
-- quarter of an hour.
--
-- If clocks are turned back at midnight or soon after, the day's first hours come twice, and AT TIME ZONE may return the
-- second: the day begins with the first moment that has its date. Antarctica/Casey turns its clocks back by three hours.
CREATE FUNCTION statistics_midnight(day date, zone text) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    midnight timestamptz := day::timestamp AT TIME ZONE zone;
BEGIN
    PERFORM 'epoch'::timestamptz AT TIME ZONE zone;  -- an unknown zone is an error, also without a day
    IF isfinite(midnight) THEN
        midnight := (SELECT min(m.moment)
                       FROM generate_series(midnight - interval '4 hours', midnight, '15 minutes') AS m (moment)
                      WHERE (m.moment AT TIME ZONE zone)::date >= day);
    END IF;
    IF isfinite(midnight) AND date_bin('15 minutes', midnight, '4714-11-24 00:00+00 BC') <> midnight THEN
        RAISE EXCEPTION '% does not begin on a quarter of an hour of UTC in the time zone "%"', day, zone
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'Statistics are kept by quarter of an hour, on which the days of all zones begin since 1972.',
                  HINT = 'Ask for UTC, or for later days.';
    END IF;
    RETURN midnight;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_midnight');

-- file: statistics/statistics_period.sql
-- The period from the beginning of the day since to the end of the day until. Only if both are null, it contains undated
-- times (statistics_day).
CREATE FUNCTION statistics_period(since date, until date, zone text, OUT first timestamptz, OUT last timestamptz)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    first := statistics_midnight(since, zone);
    last := statistics_midnight(until + 1, zone);
    IF since IS NULL AND until IS NULL THEN
        first := '-infinity';
        last := 'infinity';
    ELSE
        first := greatest(first, '0001-01-03 00:00+00');
        last := least(last, '9999-01-01 00:00+00');
    END IF;
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_period');

-- file: statistics/statistics_by_day.sql
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

-- file: statistics/statistics_by_role.sql
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

-- file: statistics/statistics_by_actor.sql
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

-- file: statistics/statistics_by_status.sql
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

-- file: statistics/statistics_response_times.sql
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

-- file: statistics/statistics_task_times.sql
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

-- file: statistics/statistics_sizes.sql
-- Sizes of the texts of messages, of the parts of messages, and of the chunks of artifacts, the last two as JSON.
CREATE FUNCTION statistics_sizes(
    tenant text, since date DEFAULT NULL, until date DEFAULT NULL, of_actor text DEFAULT NULL, zone text DEFAULT 'UTC'
) RETURNS TABLE (what text, number bigint, characters bigint, bytes bigint, average_bytes float8, largest_bytes bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path FROM CURRENT SET plan_cache_mode = force_custom_plan SET jit = off SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
    first timestamptz;
    last  timestamptz;
BEGIN
    SELECT p.first, p.last INTO first, last FROM statistics_period(since, until, zone) AS p;
    RETURN QUERY
    SELECT l.what, l.number, l.characters, l.bytes, l.bytes::float8 / nullif(l.number, 0), l.largest::bigint
      FROM (SELECT coalesce(sum(a.messages), 0)::bigint AS messages,
                   coalesce(sum(a.characters), 0)::bigint AS characters,
                   coalesce(sum(a.bytes), 0)::bigint AS bytes,
                   coalesce(sum(a.parts), 0)::bigint AS parts,
                   coalesce(sum(a.parts_bytes), 0)::bigint AS parts_bytes,
                   coalesce(sum(a.artifacts), 0)::bigint AS artifacts,
                   coalesce(sum(a.artifact_bytes), 0)::bigint AS artifact_bytes,
                   coalesce(max(a.largest_text), 0) AS largest_text,
                   coalesce(max(a.largest_parts), 0) AS largest_parts,
                   coalesce(max(a.largest_artifact), 0) AS largest_artifact
              FROM statistics_activity a
             WHERE a.tenant_id = tenant
               AND a.quarter_hour >= first AND a.quarter_hour < last
               AND (a.actor = of_actor OR of_actor IS NULL)) AS s
     CROSS JOIN LATERAL (VALUES ('text', s.messages, s.characters, s.bytes, s.largest_text),
                                ('parts', s.parts, NULL, s.parts_bytes, s.largest_parts),
                                ('artifacts', s.artifacts, NULL, s.artifact_bytes, s.largest_artifact))
                        AS l (what, number, characters, bytes, largest);
END
$$;

SELECT eventstore_set_owner('FUNCTION statistics_sizes');
REVOKE ALL ON FUNCTION statistics_sizes FROM PUBLIC;
SELECT eventstore_grant('EXECUTE ON FUNCTION statistics_sizes', 'eventstore_reader');

-- migrate:down

SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);

DROP FUNCTION statistics_sizes;
DROP FUNCTION statistics_task_times;
DROP FUNCTION statistics_response_times;
DROP FUNCTION statistics_by_status;
DROP FUNCTION statistics_by_actor;
DROP FUNCTION statistics_by_role;
DROP FUNCTION statistics_by_day;
DROP FUNCTION statistics_period;
DROP FUNCTION statistics_midnight;
DROP FUNCTION statistics_day;
DROP TABLE statistics_status_periods;
DROP TABLE statistics_tasks;
DROP TABLE statistics_answers;
DROP TABLE statistics_conversations;
DROP TABLE statistics_activity;
