-- name: a2a_task_events
-- A limited number of events of tasks after known versions of their conversations, and these conversations' versions.
-- Left out are those that are hidden because a conversation went back to an earlier version.
SELECT known.number, latest.version, e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id,
       e.tenant_id, e.event_type, e.actor, e.content, e.metadata, e.salt, e.digest
  FROM unnest(%(conversations)s::uuid[], %(tasks)s::text[], %(versions)s::int[])
       WITH ORDINALITY AS known (conversation_id, task, version, number)
 CROSS JOIN LATERAL (
           SELECT coalesce(max(e.version), 0) AS version
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = known.conversation_id
       ) AS latest
  LEFT JOIN LATERAL (
           SELECT e.*
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = known.conversation_id
              AND e.version > known.version
              AND ((e.content ->> 'task_id' = known.task OR e.metadata #>> '{a2a,task}' = known.task)
                   AND NOT EXISTS (
                           SELECT
                             FROM hiding_events(e.tenant_id, e.conversation_id, e.version) AS h
                            WHERE h.event_type = 'conversation.rewound'
                       )
                   OR e.event_type IN ('conversation.created', 'conversation.deleted', 'conversation.reactivated',
                                       'conversation.rewound', 'conversation.erased', 'event.erased'))
            ORDER BY e.version
            LIMIT %(limit)s
       ) AS e ON true
 ORDER BY known.number, e.version

-- name: a2a_has_others
-- Whether a conversation has other tasks that were not deleted, or events that belong to no task.
SELECT EXISTS (
           SELECT
             FROM (SELECT DISTINCT ON (t.task) t.task, e.event_type
                     FROM events e
                    CROSS JOIN LATERAL (
                              SELECT coalesce(e.content ->> 'task_id', e.metadata #>> '{a2a,task}', '') AS task
                          ) AS t
                    WHERE e.tenant_id = %(tenant)s
                      AND e.conversation_id = %(conversation_id)s
                      AND NOT starts_with(e.event_type, 'conversation.')
                    ORDER BY t.task, e.version DESC) AS latest
            WHERE latest.task <> %(task)s
              AND latest.event_type <> 'task.deleted'
       )

-- name: a2a_tasks
-- A page of the tasks of an owner, latest status first, with the number of all that match. Times are compared as texts
-- without their zone, which is always Z, so that nanoseconds count.
WITH owned AS MATERIALIZED (
    SELECT coalesce(t.given_id, t.id::text) AS task_id, t.status, t.extra ->> 'contextId' AS context_id,
           rtrim(t.status_extra ->> 'timestamp', 'Z') COLLATE "C" AS time
      FROM tasks t
      JOIN conversations c
        ON c.tenant_id = t.tenant_id
       AND c.id = t.conversation_id
     WHERE t.tenant_id = %(tenant)s
       AND coalesce(c.metadata #>> '{a2a,owner}', '') = %(owner)s
       AND NOT c.is_deleted
),
matching AS MATERIALIZED (
    SELECT o.task_id COLLATE "C" AS task_id, o.time
      FROM owned o
     WHERE true
       AND o.context_id = %(context_id)s
       AND o.status = %(status)s
       AND o.time >= %(since)s
)
SELECT total.count, page.task_id, page.time
  FROM (SELECT count(*) AS count FROM matching) AS total
  LEFT JOIN LATERAL (
           SELECT m.task_id, m.time
             FROM matching m
            WHERE true
              AND m.task_id < %(before_untimed_id)s AND m.time IS NULL
              AND (m.time IS NULL OR (m.time, m.task_id) < (%(before_time)s, %(before_id)s))
            ORDER BY m.time DESC NULLS LAST, m.task_id DESC
            LIMIT %(limit)s
       ) AS page ON true
