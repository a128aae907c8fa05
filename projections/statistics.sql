-- Apply a batch of the log to the tables of the statistics, in one statement: the events are read once, and of each only
-- what is counted is kept. Order is that of conversation and version, never of time: clients state when something
-- happened, and may state anything. The conversation in which a tenant registers its agents is not counted.
--
-- A deleted task is not counted: its rows go first. Ids are compared as texts, which cannot fail, whatever the log holds.
DELETE FROM statistics_tasks k
 USING batch d
 WHERE d.event_type = 'task.deleted'
   AND k.tenant_id = d.tenant_id
   AND k.conversation_id = d.conversation_id
   AND k.task_id::text = d.content ->> 'task_id';

DELETE FROM statistics_status_periods p
 USING batch d
 WHERE d.event_type = 'task.deleted'
   AND p.tenant_id = d.tenant_id
   AND p.conversation_id = d.conversation_id
   AND p.task_id::text = d.content ->> 'task_id';

WITH batch_events AS (
    SELECT b.tenant_id, b.conversation_id, b.version, b.event_type, b.actor, b.content,
           occurred_at(b.metadata, b.timestamp) AS at,
           -- The same text as in the column content of the table messages.
           CASE WHEN b.event_type = 'message.added'
                THEN coalesce(b.content ->> 'content',
                              text_of_parts(b.content -> 'parts'),
                              text_of_parts(b.content #> '{extra,content}'),
                              '')
           END AS text,
           CASE WHEN b.event_type IN ('message.added', 'task.artifact_added', 'task.artifact_extended')
                THEN b.content -> 'parts'
           END AS parts
      FROM batch b
     WHERE b.event_type NOT IN ('agent.registered', 'agent.unregistered', 'a2a.home', 'a2a.push_notification')
    OFFSET 0  -- an optimisation fence: otherwise each use of the text computes it again
),
facts AS MATERIALIZED (
    SELECT r.tenant_id, r.conversation_id, r.version, r.event_type, r.actor, r.at,
           CASE WHEN r.event_type = 'message.added' THEN r.content ->> 'role' END AS role,
           char_length(r.text) AS characters,
           octet_length(r.text) AS bytes,
           jsonb_array_length(r.parts) AS parts,
           octet_length(r.parts::text) AS parts_bytes,
           CASE WHEN r.event_type IN ('task.created', 'task.status_changed', 'task.described',
                                      'task.artifact_added', 'task.artifact_extended')
                THEN (r.content ->> 'task_id')::uuid
           END AS task_id,
           CASE WHEN r.event_type IN ('task.created', 'task.status_changed') THEN r.content ->> 'status' END AS status
      FROM batch_events r
),

-- Counters.
counted AS MATERIALIZED (
    SELECT f.tenant_id, f.conversation_id,
           date_bin('15 minutes', f.at, '0001-01-01 00:00+00') AS quarter_hour,
           coalesce(f.role, '') AS role,
           f.actor,
           count(*) AS events,
           count(f.role) AS messages,
           coalesce(sum(f.characters), 0) AS characters,
           coalesce(sum(f.bytes), 0) AS bytes,
           coalesce(sum(f.parts) FILTER (WHERE f.role IS NOT NULL), 0) AS parts,
           coalesce(sum(f.parts_bytes) FILTER (WHERE f.role IS NOT NULL), 0) AS parts_bytes,
           count(f.parts) FILTER (WHERE f.role IS NULL) AS artifacts,
           coalesce(sum(f.parts_bytes) FILTER (WHERE f.role IS NULL), 0) AS artifact_bytes,
           coalesce(max(f.bytes), 0) AS largest_text,
           coalesce(max(f.parts_bytes) FILTER (WHERE f.role IS NOT NULL), 0) AS largest_parts,
           coalesce(max(f.parts_bytes) FILTER (WHERE f.role IS NULL), 0) AS largest_artifact
      FROM facts f
     GROUP BY f.tenant_id, f.conversation_id, 3, 4, f.actor
),
counters_updated AS (
    UPDATE statistics_activity a
       SET events           = a.events + c.events,
           messages         = a.messages + c.messages,
           characters       = a.characters + c.characters,
           bytes            = a.bytes + c.bytes,
           parts            = a.parts + c.parts,
           parts_bytes      = a.parts_bytes + c.parts_bytes,
           artifacts        = a.artifacts + c.artifacts,
           artifact_bytes   = a.artifact_bytes + c.artifact_bytes,
           largest_text     = greatest(a.largest_text, c.largest_text),
           largest_parts    = greatest(a.largest_parts, c.largest_parts),
           largest_artifact = greatest(a.largest_artifact, c.largest_artifact)
      FROM counted c
     WHERE a.tenant_id = c.tenant_id
       AND a.conversation_id = c.conversation_id
       AND a.quarter_hour = c.quarter_hour
       AND a.role = c.role
       AND a.actor = c.actor
),
counters_inserted AS (
    INSERT INTO statistics_activity (conversation_id, tenant_id, quarter_hour, role, actor, events, messages,
                                     characters, bytes, parts, parts_bytes, artifacts, artifact_bytes, largest_text,
                                     largest_parts, largest_artifact)
    SELECT c.conversation_id, c.tenant_id, c.quarter_hour, c.role, c.actor, c.events, c.messages, c.characters,
           c.bytes, c.parts, c.parts_bytes, c.artifacts, c.artifact_bytes, c.largest_text, c.largest_parts,
           c.largest_artifact
      FROM counted c
     WHERE NOT EXISTS (
               SELECT
                 FROM statistics_activity a
                WHERE a.tenant_id = c.tenant_id
                  AND a.conversation_id = c.conversation_id
                  AND a.quarter_hour = c.quarter_hour
                  AND a.role = c.role
                  AND a.actor = c.actor
           )
),

-- Questions and answers. A question that was open before the batch is the first message of its conversation here.
changed AS MATERIALIZED (
    SELECT f.tenant_id, f.conversation_id,
           max(f.at) FILTER (WHERE f.version = 1) AS began_at,
           max(f.actor) FILTER (WHERE f.version = 1) AS actor,
           max(f.version) FILTER (WHERE f.event_type = 'conversation.archived') AS archived,
           max(f.version) FILTER (WHERE f.event_type = 'conversation.reactivated') AS reactivated,
           max(f.version) FILTER (WHERE f.event_type = 'conversation.deleted') AS deleted
      FROM facts f
     GROUP BY f.tenant_id, f.conversation_id
),
messages AS (
    SELECT c.tenant_id, c.conversation_id, c.question_version AS version, c.asked_at AS at, c.actor, true AS asks
      FROM changed s
      JOIN statistics_conversations c
        ON c.tenant_id = s.tenant_id
       AND c.conversation_id = s.conversation_id
       AND c.question_version IS NOT NULL
     UNION ALL
    SELECT f.tenant_id, f.conversation_id, f.version, f.at, f.actor, f.role = 'user'
      FROM facts f
     WHERE f.role IN ('user', 'assistant')
),
-- The first question of each run of questions, and the first answer of each run of answers.
turns AS MATERIALIZED (
    SELECT t.tenant_id, t.conversation_id, t.version, t.at, t.actor, t.asks,
           lag(t.version) OVER conversation AS question_version,
           lag(t.at) OVER conversation AS asked_at,
           lead(t.version) OVER conversation IS NULL AS is_last
      FROM (SELECT s.*,
                   lag(s.asks, 1, false)
                       OVER (PARTITION BY s.tenant_id, s.conversation_id ORDER BY s.version) AS was_asked
              FROM messages s) AS t
     WHERE t.asks <> t.was_asked
    WINDOW conversation AS (PARTITION BY t.tenant_id, t.conversation_id ORDER BY t.version)
),
answered AS (
    INSERT INTO statistics_answers (conversation_id, tenant_id, version, question_version, asked_at, answered_at, actor)
    SELECT t.conversation_id, t.tenant_id, t.version, t.question_version, t.asked_at, t.at, t.actor
      FROM turns t
     WHERE NOT t.asks
),

-- Conversations. A null has not changed; question_version is 0 if no question is open any more.
conversations AS MATERIALIZED (
    SELECT s.tenant_id, s.conversation_id,
           max(s.began_at) AS began_at,
           max(s.actor) AS actor,
           bool_or(s.is_active) AS is_active,
           bool_or(s.is_deleted) AS is_deleted,
           max(s.asked_at) AS asked_at,
           max(s.question_version) AS question_version
      FROM (SELECT s.tenant_id, s.conversation_id, s.began_at, s.actor,
                   CASE WHEN s.archived > coalesce(s.reactivated, 0) THEN false
                        WHEN s.reactivated > coalesce(s.archived, 0) THEN true
                   END AS is_active,
                   CASE WHEN s.deleted > coalesce(s.reactivated, 0) THEN true
                        WHEN s.reactivated > coalesce(s.deleted, 0) THEN false
                   END AS is_deleted,
                   NULL::timestamptz AS asked_at,
                   NULL::integer AS question_version
              FROM changed s
             UNION ALL
            SELECT t.tenant_id, t.conversation_id, NULL, NULL, NULL, NULL,
                   CASE WHEN t.asks THEN t.at END,
                   CASE WHEN t.asks THEN t.version ELSE 0 END
              FROM turns t
             WHERE t.is_last) AS s
     GROUP BY s.tenant_id, s.conversation_id
),
conversations_changed AS (
    UPDATE statistics_conversations c
       SET is_active        = coalesce(n.is_active, c.is_active),
           is_deleted       = coalesce(n.is_deleted, c.is_deleted),
           asked_at         = CASE WHEN n.question_version IS NULL THEN c.asked_at ELSE n.asked_at END,
           question_version = nullif(coalesce(n.question_version, c.question_version), 0)
      FROM conversations n
     WHERE c.tenant_id = n.tenant_id
       AND c.conversation_id = n.conversation_id
       AND n.began_at IS NULL
       AND (n.is_active <> c.is_active
            OR n.is_deleted <> c.is_deleted
            OR n.question_version <> coalesce(c.question_version, 0))
),
conversations_begun AS (
    INSERT INTO statistics_conversations (conversation_id, tenant_id, began_at, asked_at, question_version, is_active,
                                          is_deleted, actor)
    SELECT n.conversation_id, n.tenant_id, n.began_at, n.asked_at, nullif(n.question_version, 0),
           coalesce(n.is_active, true), coalesce(n.is_deleted, false), n.actor
      FROM conversations n
     WHERE n.began_at IS NOT NULL
),

-- Tasks. The first event of a task, whatever its type, creates the row; a repeated status does not begin a period.
deleted AS MATERIALIZED (  -- looked up once, however many events a conversation has
    SELECT b.tenant_id, b.conversation_id, b.version, b.content ->> 'task_id' AS task_id
      FROM batch b
     WHERE b.event_type = 'task.deleted'
),
steps AS (
    SELECT k.tenant_id, k.conversation_id, k.task_id, k.version, k.entered_at AS at, k.created_at, k.actor, k.status,
           true AS is_known
      FROM (SELECT DISTINCT f.tenant_id, f.conversation_id, f.task_id
              FROM facts f
             WHERE f.task_id IS NOT NULL) AS s
      JOIN statistics_tasks k
        ON k.tenant_id = s.tenant_id
       AND k.conversation_id = s.conversation_id
       AND k.task_id = s.task_id
     UNION ALL
    SELECT f.tenant_id, f.conversation_id, f.task_id, f.version, f.at, f.at, f.actor, f.status, false
      FROM facts f
     WHERE f.task_id IS NOT NULL
       AND NOT EXISTS (
               SELECT
                 FROM deleted d
                WHERE d.tenant_id = f.tenant_id
                  AND d.conversation_id = f.conversation_id
                  AND d.task_id = f.task_id::text
                  AND d.version > f.version
           )
),
periods AS MATERIALIZED (
    SELECT c.tenant_id, c.conversation_id, c.task_id, c.version, c.at, c.created_at, c.actor, c.status, c.is_known,
           lead(c.at) OVER task AS left_at
      FROM (SELECT n.*, lag(n.status) OVER task AS former
              FROM (SELECT s.tenant_id, s.conversation_id, s.task_id, s.version, s.at,
                           coalesce(s.status, CASE WHEN row_number() OVER task = 1 THEN 'unknown' END) AS status,
                           first_value(s.created_at) OVER task AS created_at,
                           first_value(s.actor) OVER task AS actor,
                           first_value(s.is_known) OVER task AS is_known
                      FROM steps s
                    WINDOW task AS (PARTITION BY s.tenant_id, s.conversation_id, s.task_id ORDER BY s.version)) AS n
             WHERE n.status IS NOT NULL
            WINDOW task AS (PARTITION BY n.tenant_id, n.conversation_id, n.task_id ORDER BY n.version)) AS c
     WHERE c.status IS DISTINCT FROM c.former
    WINDOW task AS (PARTITION BY c.tenant_id, c.conversation_id, c.task_id ORDER BY c.version)
),
periods_ended AS (
    INSERT INTO statistics_status_periods (task_id, conversation_id, tenant_id, entered_at, left_at, version, status)
    SELECT s.task_id, s.conversation_id, s.tenant_id, s.at, s.left_at, s.version, s.status
      FROM periods s
     WHERE s.left_at IS NOT NULL
),
tasks_changed AS (
    UPDATE statistics_tasks k
       SET status     = s.status,
           entered_at = s.at,
           version    = s.version
      FROM periods s
     WHERE s.left_at IS NULL
       AND s.is_known
       AND k.tenant_id = s.tenant_id
       AND k.conversation_id = s.conversation_id
       AND k.task_id = s.task_id
       AND k.version < s.version
)
INSERT INTO statistics_tasks (task_id, conversation_id, tenant_id, created_at, entered_at, version, status, actor)
SELECT s.task_id, s.conversation_id, s.tenant_id, s.created_at, s.at, s.version, s.status, s.actor
  FROM periods s
 WHERE s.left_at IS NULL
   AND NOT s.is_known;
