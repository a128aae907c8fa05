-- Folds a batch of the log into the tables tasks and task_artifacts. The first event of a task, whatever it is, makes
-- its row: a remote agent may report on a task that nobody announced.
WITH folded AS MATERIALIZED (
    SELECT b.tenant_id,
           b.conversation_id,
           (b.content ->> 'task_id')::uuid AS id,
           max(b.version) AS version,
           (array_agg(b.content ->> 'status' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('task.created', 'task.status_changed')))[1] AS status,
           (array_agg(b.content ->> 'description' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('task.created', 'task.described') AND b.content ? 'description'))[1]
               AS description,
           (array_agg(b.content ->> 'given_id' ORDER BY b.version)
               FILTER (WHERE b.event_type = 'task.created' AND b.content ? 'given_id'))[1] AS given_id,
           bool_or(b.event_type = 'task.status_changed') AS has_status_message,
           (array_agg(b.content -> 'message' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type = 'task.status_changed'))[1] AS status_message,
           (array_agg(b.content -> 'extra' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type = 'task.status_changed'))[1] AS status_extra,
           (array_agg(b.content -> 'metadata' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('task.created', 'task.described') AND b.content ? 'metadata'))[1] AS metadata,
           (array_agg(b.content -> 'extra' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('task.created', 'task.described') AND b.content ? 'extra'))[1] AS extra,
           max(b.version)
               FILTER (WHERE b.content ? 'extra'
                         AND (b.event_type = 'task.created'
                              OR b.event_type = 'task.described'
                                 AND (NOT b.content ? 'history' OR b.content -> 'extra' ? 'history'))) AS history_version,
           (array_agg(occurred_at(b.metadata, b.timestamp) ORDER BY b.version))[1] AS created_at,
           max(occurred_at(b.metadata, b.timestamp)) AS updated_at
      FROM batch b
     WHERE b.event_type IN ('task.created', 'task.status_changed', 'task.described',
                            'task.artifact_added', 'task.artifact_extended')
     GROUP BY b.tenant_id, b.conversation_id, b.content ->> 'task_id'
),
-- Histories that go on: by these messages, after those of the last event that gave the history whole or took it away,
-- else after those of the row.
continued AS MATERIALIZED (
    SELECT f.tenant_id, f.conversation_id, f.id,
           f.history_version IS NULL AS follows_row,
           coalesce(jsonb_agg(m.message ORDER BY b.version, m.place, m.number) FILTER (WHERE m.number IS NOT NULL),
                    '[]') AS messages
      FROM folded f
      JOIN batch b
        ON b.tenant_id = f.tenant_id
       AND b.conversation_id = f.conversation_id
       AND b.content ->> 'task_id' = f.id::text
       AND b.version >= coalesce(f.history_version, 0)
       AND b.event_type IN ('task.created', 'task.described')
      LEFT JOIN LATERAL (
               SELECT 1 AS place, g.message, g.number
                 FROM jsonb_array_elements(CASE WHEN b.version = f.history_version
                                                     AND jsonb_typeof(b.content #> '{extra,history}') = 'array'
                                                    THEN b.content #> '{extra,history}'
                                           END) WITH ORDINALITY AS g (message, number)
               UNION ALL
               SELECT 2, n.message, n.number
                 FROM jsonb_array_elements(CASE WHEN b.event_type = 'task.described'
                                                    THEN b.content -> 'history'
                                           END) WITH ORDINALITY AS n (message, number)
           ) m ON true
     GROUP BY f.tenant_id, f.conversation_id, f.id, f.history_version
    HAVING bool_or(b.event_type = 'task.described' AND b.content ? 'history')
),
updated AS (
    UPDATE tasks t
       SET version        = f.version,
           status         = coalesce(f.status, t.status),
           description    = coalesce(f.description, t.description),
           given_id       = coalesce(t.given_id, f.given_id),
           status_message = CASE WHEN f.has_status_message THEN f.status_message ELSE t.status_message END,
           status_extra   = CASE WHEN f.has_status_message THEN f.status_extra ELSE t.status_extra END,
           metadata       = coalesce(f.metadata, t.metadata),
           extra          = CASE WHEN c.id IS NULL THEN coalesce(f.extra, t.extra)
                                 ELSE coalesce(f.extra, t.extra, '{}')
                                      || jsonb_build_object('history', CASE
                                             WHEN c.follows_row AND jsonb_typeof(t.extra -> 'history') = 'array'
                                                 THEN (t.extra -> 'history') || c.messages
                                             ELSE c.messages
                                         END)
                            END,
           updated_at     = greatest(t.updated_at, f.updated_at)
      FROM folded f
      LEFT JOIN continued c
        ON c.tenant_id = f.tenant_id
       AND c.conversation_id = f.conversation_id
       AND c.id = f.id
     WHERE t.tenant_id = f.tenant_id
       AND t.conversation_id = f.conversation_id
       AND t.id = f.id
    RETURNING t.tenant_id, t.conversation_id, t.id
)
INSERT INTO tasks (id, conversation_id, tenant_id, version, status, description, created_at, updated_at, given_id,
                   status_message, metadata, extra, status_extra)
SELECT f.id, f.conversation_id, f.tenant_id, f.version, coalesce(f.status, 'unknown'), coalesce(f.description, ''),
       f.created_at, f.updated_at, f.given_id, f.status_message, f.metadata,
       CASE WHEN c.id IS NULL THEN f.extra
            ELSE coalesce(f.extra, '{}') || jsonb_build_object('history', c.messages)
       END,
       f.status_extra
  FROM folded f
  LEFT JOIN continued c
    ON c.tenant_id = f.tenant_id
   AND c.conversation_id = f.conversation_id
   AND c.id = f.id
 WHERE NOT EXISTS (
           SELECT
             FROM updated u
            WHERE u.tenant_id = f.tenant_id
              AND u.conversation_id = f.conversation_id
              AND u.id = f.id
       );

INSERT INTO task_artifacts (task_id, conversation_id, tenant_id, version, artifact_id, extends, last_chunk,
                            continues_text, name, description, parts, created_at, extra, metadata)
SELECT (b.content ->> 'task_id')::uuid, b.conversation_id, b.tenant_id, b.version,
       b.content ->> 'artifact_id',
       b.event_type = 'task.artifact_extended',
       (b.content -> 'last_chunk')::boolean,
       coalesce(b.event_type = 'task.artifact_extended' AND b.content -> 'continues_text' = 'true', false),
       b.content ->> 'name',
       b.content ->> 'description',
       b.content -> 'parts',
       occurred_at(b.metadata, b.timestamp),
       b.content -> 'extra',
       b.content -> 'metadata'
  FROM batch b
 WHERE b.event_type IN ('task.artifact_added', 'task.artifact_extended')
 ORDER BY b.position;
