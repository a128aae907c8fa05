-- Apply a batch of the log to the tables tasks and task_artifacts. The first event of a task, whatever its type, creates
-- the row: a remote agent may report on a task that no event has created. A deleted task leaves the tables until a later
-- event begins it anew. The content of task.deleted is not validated, and comparing it as text cannot fail.
DELETE FROM tasks t
 USING batch d
 WHERE d.event_type = 'task.deleted'
   AND t.tenant_id = d.tenant_id
   AND t.conversation_id = d.conversation_id
   AND t.id::text = d.content ->> 'task_id';

DELETE FROM task_artifacts a
 USING batch d
 WHERE d.event_type = 'task.deleted'
   AND a.tenant_id = d.tenant_id
   AND a.conversation_id = d.conversation_id
   AND a.task_id::text = d.content ->> 'task_id';

-- If a conversation went back to an earlier version, the tasks that it began after that are deleted, and so are chunks of
-- artifacts. An event after that begins such a task anew, in the same batch as in a later one.
DELETE FROM tasks t
 USING batch r
 WHERE r.event_type = 'conversation.rewound'
   AND t.tenant_id = r.tenant_id
   AND t.conversation_id = r.conversation_id
   AND t.first_version > (r.content ->> 'to_version')::integer
   AND t.first_version < r.version;

WITH deleted AS MATERIALIZED (  -- looked up once, however many events a conversation has
    SELECT b.tenant_id, b.conversation_id, b.version, b.content ->> 'task_id' AS task_id
      FROM batch b
     WHERE b.event_type = 'task.deleted'
),
ended AS MATERIALIZED (
    -- The tasks that began in this batch and that their conversation hides since, and up to which version.
    SELECT r.tenant_id, r.conversation_id, begun.task_id, max(r.version) AS version
      FROM batch r
     CROSS JOIN LATERAL (
               SELECT b.content ->> 'task_id' AS task_id, min(b.version) AS first_version
                 FROM batch b
                WHERE b.tenant_id = r.tenant_id
                  AND b.conversation_id = r.conversation_id
                  AND b.event_type IN ('task.created', 'task.status_changed', 'task.described',
                                       'task.artifact_added', 'task.artifact_extended')
                  AND NOT EXISTS (
                          SELECT
                            FROM deleted d
                           WHERE d.tenant_id = b.tenant_id
                             AND d.conversation_id = b.conversation_id
                             AND d.task_id = b.content ->> 'task_id'
                             AND d.version > b.version
                             AND d.version < r.version
                      )
                GROUP BY b.content ->> 'task_id'
           ) AS begun
     WHERE r.event_type = 'conversation.rewound'
       AND begun.first_version > (r.content ->> 'to_version')::integer
       AND begun.first_version < r.version
       AND NOT EXISTS (
               SELECT
                 FROM tasks t
                WHERE t.tenant_id = r.tenant_id
                  AND t.conversation_id = r.conversation_id
                  AND t.id::text = begun.task_id
           )
     GROUP BY r.tenant_id, r.conversation_id, begun.task_id
),
folded AS MATERIALIZED (
    SELECT b.tenant_id,
           b.conversation_id,
           (b.content ->> 'task_id')::uuid AS id,
           max(b.version) AS version,
           min(b.version) AS first_version,
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
           -- Of the columns that the batch sets; null where the order is that of jsonb (eventstore/member_order.py).
           CASE WHEN bool_or(b.event_type = 'task.status_changed')
                THEN jsonb_build_object(
                         'status_message',
                         (array_agg(b.metadata #> '{eventstore.member_order,content,message}' ORDER BY b.version DESC)
                             FILTER (WHERE b.event_type = 'task.status_changed'))[1],
                         'status_extra',
                         (array_agg(b.metadata #> '{eventstore.member_order,content,extra}' ORDER BY b.version DESC)
                             FILTER (WHERE b.event_type = 'task.status_changed'))[1])
                ELSE '{}'
           END
           || CASE WHEN bool_or(b.event_type IN ('task.created', 'task.described') AND b.content ? 'metadata')
                   THEN jsonb_build_object(
                            'metadata',
                            (array_agg(b.metadata #> '{eventstore.member_order,content,metadata}' ORDER BY b.version DESC)
                                FILTER (WHERE b.event_type IN ('task.created', 'task.described')
                                          AND b.content ? 'metadata'))[1])
                   ELSE '{}'
              END
           || CASE WHEN bool_or(b.event_type IN ('task.created', 'task.described') AND b.content ? 'extra')
                   THEN jsonb_build_object(
                            'extra',
                            (array_agg(b.metadata #> '{eventstore.member_order,content,extra}' ORDER BY b.version DESC)
                                FILTER (WHERE b.event_type IN ('task.created', 'task.described')
                                          AND b.content ? 'extra'))[1])
                   ELSE '{}'
              END AS member_order,
           max(b.version)
               FILTER (WHERE b.event_type IN ('task.created', 'task.described') AND b.content ? 'extra') AS extra_version,
           -- Of the last event that gives the history whole, or takes it away.
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
       AND NOT EXISTS (
               SELECT
                 FROM deleted d
                WHERE d.tenant_id = b.tenant_id
                  AND d.conversation_id = b.conversation_id
                  AND d.task_id = b.content ->> 'task_id'
                  AND d.version > b.version
           )
       AND NOT EXISTS (
               SELECT
                 FROM ended e
                WHERE e.tenant_id = b.tenant_id
                  AND e.conversation_id = b.conversation_id
                  AND e.task_id = b.content ->> 'task_id'
                  AND b.version < e.version
           )
     GROUP BY b.tenant_id, b.conversation_id, b.content ->> 'task_id'
),
histories AS MATERIALIZED (
    SELECT b.tenant_id, b.conversation_id, b.version, b.content ->> 'task_id' AS task_id,
           b.content -> 'history' AS history, b.metadata #> '{eventstore.member_order,content,history}' AS history_order
      FROM batch b
     WHERE b.event_type = 'task.described'
       AND b.content ? 'history'
),
-- Histories that go on: the chunks that follow the last event that gave the history whole or took it away, else those
-- of the row; and the extra with that history, if a later event has replaced the rest of it.
continued AS MATERIALIZED (
    SELECT g.*,
           jsonb_build_object(
               'after', CASE
                            WHEN g.history_version IS NOT NULL AND g.history_version < g.extra_version
                                THEN (SELECT jsonb_build_object(
                                                 'extra', b.content -> 'extra',
                                                 'order', b.metadata #> '{eventstore.member_order,content,extra}')
                                        FROM batch b
                                       WHERE b.tenant_id = g.tenant_id
                                         AND b.conversation_id = g.conversation_id
                                         AND b.version = g.history_version)
                            WHEN g.history_version IS NULL AND g.extra_version IS NOT NULL
                                THEN '{"extra": null, "order": null}'
                        END,
               'chunks', g.chunks
           ) AS added
      FROM (SELECT f.tenant_id, f.conversation_id, f.id, f.history_version, f.extra_version,
                   jsonb_agg(jsonb_build_object('messages', h.history, 'order', h.history_order)
                             ORDER BY h.version) AS chunks
              FROM folded f
              JOIN histories h
                ON h.tenant_id = f.tenant_id
               AND h.conversation_id = f.conversation_id
               AND h.task_id = f.id::text
               AND h.version >= coalesce(f.history_version, f.first_version)
             GROUP BY f.tenant_id, f.conversation_id, f.id, f.history_version, f.extra_version) AS g
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
           extra          = coalesce(f.extra, t.extra),
           member_order   = nullif(jsonb_strip_nulls(coalesce(t.member_order, '{}') || f.member_order), '{}'),
           added_history  = CASE
                                WHEN f.history_version IS NOT NULL THEN c.added
                                WHEN c.id IS NULL THEN t.added_history
                                ELSE jsonb_build_object(
                                         'after', coalesce(
                                                      nullif(t.added_history -> 'after', 'null'),
                                                      CASE WHEN f.extra IS NOT NULL
                                                           THEN jsonb_build_object('extra', t.extra,
                                                                                   'order', t.member_order -> 'extra')
                                                      END),
                                         'chunks', coalesce(t.added_history -> 'chunks', '[]') || c.chunks)
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
)
INSERT INTO tasks (id, conversation_id, tenant_id, version, first_version, status, description, created_at, updated_at,
                   given_id, status_message, metadata, extra, status_extra, member_order, added_history)
SELECT f.id, f.conversation_id, f.tenant_id, f.version, f.first_version, coalesce(f.status, 'unknown'),
       coalesce(f.description, ''), f.created_at, f.updated_at, f.given_id, f.status_message, f.metadata, f.extra,
       f.status_extra, nullif(jsonb_strip_nulls(f.member_order), '{}'), c.added
  FROM folded f
  LEFT JOIN continued c
    ON c.tenant_id = f.tenant_id
   AND c.conversation_id = f.conversation_id
   AND c.id = f.id
 WHERE NOT EXISTS (
           SELECT
             FROM tasks t
            WHERE t.tenant_id = f.tenant_id
              AND t.conversation_id = f.conversation_id
              AND t.id = f.id
       );

WITH deleted AS MATERIALIZED (  -- looked up once, however many events a conversation has
    SELECT b.tenant_id, b.conversation_id, b.version, b.content ->> 'task_id' AS task_id
      FROM batch b
     WHERE b.event_type = 'task.deleted'
)
INSERT INTO task_artifacts (task_id, conversation_id, tenant_id, version, artifact_id, extends, last_chunk,
                            continues_text, name, description, parts, created_at, extra, metadata, member_order)
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
       b.content -> 'metadata',
       b.metadata #> '{eventstore.member_order,content}'
  FROM batch b
 WHERE b.event_type IN ('task.artifact_added', 'task.artifact_extended')
   AND NOT EXISTS (
           SELECT
             FROM deleted d
            WHERE d.tenant_id = b.tenant_id
              AND d.conversation_id = b.conversation_id
              AND d.task_id = b.content ->> 'task_id'
              AND d.version > b.version
       )
 ORDER BY b.position;

DELETE FROM task_artifacts a
 USING batch r
 WHERE r.event_type = 'conversation.rewound'
   AND a.tenant_id = r.tenant_id
   AND a.conversation_id = r.conversation_id
   AND a.version > (r.content ->> 'to_version')::integer
   AND a.version < r.version;
