-- name: as_of_events
-- A line is left out if its parameter is not given. The events up to a time are the versions up to the last that has one
-- not after it: the server's clock may have stepped back in between.
INSERT INTO batch (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
                   content, metadata, salt)
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version <= %(version)s
   AND e.position <= %(position)s
   AND e.version <= (SELECT max(l.version) FROM events l WHERE l.tenant_id = e.tenant_id AND l.conversation_id = e.conversation_id AND l.timestamp <= %(time)s)
   AND (e.version = 1 OR e.event_type <> 'message.added' OR e.version BETWEEN %(first)s AND %(last)s)
 ORDER BY e.version

-- name: as_of_page
-- The version that a conversation had, and the versions of the first and the last of its own messages on a page. A line is
-- left out if its parameter is not given.
SELECT r.version, coalesce(min(m.version), 0), coalesce(max(m.version), 0)
  FROM (SELECT max(e.version) AS version
          FROM events e
         WHERE e.tenant_id = %(tenant)s
           AND e.conversation_id = %(conversation_id)s
           AND e.version <= %(version)s
           AND e.position <= %(position)s
           AND e.timestamp <= %(time)s
       ) AS r
  LEFT JOIN LATERAL (
           SELECT e.version
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = %(conversation_id)s
              AND e.version <= r.version
              AND e.version >= %(from_version)s
              AND e.event_type = 'message.added'
              AND NOT EXISTS (
                      SELECT
                        FROM events h
                       WHERE h.tenant_id = %(tenant)s
                         AND h.conversation_id = %(conversation_id)s
                         AND h.event_type = 'conversation.rewound'
                         AND h.version > e.version
                         AND h.version <= r.version
                         AND (h.content ->> 'to_version')::integer < e.version
                  )
            ORDER BY e.version {direction}
            LIMIT %(limit)s
       ) AS m ON true
 GROUP BY r.version

-- name: as_of_other_messages
-- Count the messages that are not on the page: those that the conversation had when it last went back to an earlier
-- version are counted already.
UPDATE conversations c
   SET version       = greatest(c.version, o.version),
       message_count = c.message_count + o.messages,
       updated_at    = greatest(c.updated_at, o.updated_at)
  FROM (SELECT count(*) FILTER (
                   WHERE e.version > ALL (SELECT b.version
                                            FROM batch b
                                           WHERE b.conversation_id = %(conversation_id)s
                                             AND b.event_type = 'conversation.rewound')
               ) AS messages,
               max(e.version) AS version,
               max(occurred_at(e.metadata, e.timestamp)) AS updated_at
          FROM events e
         WHERE e.tenant_id = %(tenant)s
           AND e.conversation_id = %(conversation_id)s
           AND e.version <= %(version)s
           AND e.event_type = 'message.added'
           AND NOT (e.version = 1 OR e.version BETWEEN %(first)s AND %(last)s)) AS o
 WHERE c.id = %(conversation_id)s

-- name: as_of_versions
-- The versions of the conversations that a text may name.
SELECT e.conversation_id, max(e.version)
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = ANY (%(ids)s::uuid[])
 GROUP BY e.conversation_id

-- name: as_of_batch
-- The batch of a conversation as it was, in place of the view of the same name. An inline append may have left that view
-- in a session that a pooler lends; the rollback of this transaction restores it.
DROP VIEW IF EXISTS pg_temp.batch;

CREATE TEMPORARY TABLE batch (
    position        bigint,
    timestamp       timestamptz,
    version         integer,
    schema_version  smallint,
    conversation_id uuid,
    id              uuid,
    tenant_id       varchar(255) COLLATE "C",
    event_type      varchar(100) COLLATE "C",
    actor           varchar(255),
    content         jsonb,
    metadata        jsonb,
    salt            bytea
)

-- name: as_of_ancestry
-- The conversations that a fork shares events of, the nearest first, and up to which version, by the rules of
-- conversation_ancestry, from the log. A line is left out if its parameter is not given.
WITH RECURSIVE ancestry AS (
    SELECT %(conversation_id)s::uuid AS id, 0 AS version, ARRAY[%(conversation_id)s::uuid] AS path
     UNION ALL
    SELECT s.id, s.version, a.path || s.id
      FROM ancestry a
     CROSS JOIN LATERAL (
               SELECT (e.content ->> 'source_conversation_id')::uuid AS id,
                      least(greatest((e.content ->> 'source_version')::numeric, 0), 2147483646)::integer AS version
                 FROM events e
                WHERE e.tenant_id = %(tenant)s
                  AND e.conversation_id = a.id
                  AND e.version = 1
                  AND e.event_type = 'conversation.forked'
               OFFSET 0
           ) AS s
     CROSS JOIN LATERAL (
               SELECT coalesce((SELECT d.event_type = 'conversation.deleted'
                                  FROM events d
                                 WHERE d.tenant_id = %(tenant)s
                                   AND d.conversation_id = s.id
                                   AND d.event_type IN ('conversation.deleted', 'conversation.reactivated')
                                   AND d.position <= %(position)s
                                   AND d.timestamp <= %(time)s
                                 ORDER BY d.version DESC
                                 LIMIT 1), false) AS is_deleted
                 FROM events e
                WHERE e.tenant_id = %(tenant)s
                  AND e.conversation_id = s.id
                  AND e.version = 1
               OFFSET 0
           ) AS source
     WHERE s.id <> ALL (a.path)
       AND NOT source.is_deleted
)
SELECT a.id, a.version
  FROM ancestry a
 WHERE cardinality(a.path) > 1
 ORDER BY cardinality(a.path)

-- name: as_of_shared_events
-- The events of conversations up to a version, and of each fork among them the first one, which names its source; and the
-- later ones that delete a task or go back to an earlier version, because what they hide is hidden from forks, too. A line
-- is left out if its parameter is not given.
INSERT INTO batch (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
                   content, metadata, salt)
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt
  FROM unnest(%(ids)s::uuid[], %(versions)s::int[]) AS n (conversation_id, version)
 CROSS JOIN LATERAL (
           (SELECT e.*
              FROM events e
             WHERE e.tenant_id = %(tenant)s
               AND e.conversation_id = n.conversation_id
               AND e.version <= greatest(n.version, 1)
               AND (e.version <= n.version OR e.event_type = 'conversation.forked')
               AND (e.event_type LIKE %(types)s OR e.event_type = 'conversation.rewound')
             ORDER BY e.version)
             UNION ALL
            SELECT e.*
              FROM events e
             WHERE e.tenant_id = %(tenant)s
               AND e.conversation_id = n.conversation_id
               AND e.version > n.version
               AND e.event_type IN ('conversation.rewound', 'task.deleted')
               AND e.position <= %(position)s
               AND e.timestamp <= %(time)s
       ) AS e

-- name: as_of_shared
-- Show what a fork shares: shared_then has decided that, whatever the events up to its version say.
UPDATE conversations c
   SET is_deleted = false
 WHERE c.id <> %(conversation_id)s

-- name: as_of_reached
-- The versions up to which the batch has events, by conversation.
SELECT b.conversation_id, max(b.version)
  FROM batch b
 GROUP BY b.conversation_id

-- name: rewinds
-- The events of the batch by which conversations went back to earlier versions, in order.
SELECT b.conversation_id, b.version, (b.content ->> 'to_version')::integer
  FROM batch b
 WHERE b.event_type = 'conversation.rewound'
 ORDER BY b.conversation_id, b.version

-- name: hide_tasks
-- Remove what a conversation had of tasks that it began after the version to which it went back. A task that another one
-- shares with it is then as that one has it.
DELETE FROM batch b
 USING (SELECT e.content ->> 'task_id' AS task_id
          FROM batch e
         WHERE e.conversation_id = %(conversation_id)s
           AND e.version < %(version)s
           AND e.event_type IN ('task.created', 'task.status_changed', 'task.described',
                                'task.artifact_added', 'task.artifact_extended')
           AND e.version > ALL (SELECT d.version
                                  FROM batch d
                                 WHERE d.conversation_id = %(conversation_id)s
                                   AND d.version < %(version)s
                                   AND d.event_type = 'task.deleted'
                                   AND d.content ->> 'task_id' = e.content ->> 'task_id')
         GROUP BY e.content ->> 'task_id'
        HAVING min(e.version) > %(to_version)s) AS h
 WHERE b.conversation_id = %(conversation_id)s
   AND b.version < %(version)s
   AND b.event_type LIKE 'task.%%'
   AND b.content ->> 'task_id' = h.task_id

-- name: join_tasks
-- Let all events of tasks be those of one conversation, in order, so that a task that several conversations share is
-- folded as a single one.
UPDATE batch b
   SET conversation_id = %(conversation_id)s,
       version         = b.version + a.base,
       content         = CASE b.event_type
                             WHEN 'conversation.rewound'
                                 THEN jsonb_build_object('to_version', (b.content ->> 'to_version')::integer + a.base)
                             ELSE b.content
                         END
  FROM unnest(%(ids)s::uuid[], %(bases)s::int[]) AS a (conversation_id, base)
 WHERE b.conversation_id = a.conversation_id
   AND (b.event_type LIKE 'task.%%' OR b.event_type = 'conversation.rewound')

-- name: separate_tasks
-- Give each task the conversation and the version of its last event. They are all begun at the version up to which they
-- are shared.
UPDATE tasks t
   SET conversation_id = a.conversation_id,
       version         = t.version - a.base,
       first_version   = 0
  FROM unnest(%(ids)s::uuid[], %(bases)s::int[], %(ends)s::bigint[]) AS a (conversation_id, base, last)
 WHERE t.version > a.base
   AND t.version <= a.last

-- name: separate_artifacts
-- See "separate_tasks".
UPDATE task_artifacts c
   SET conversation_id = t.conversation_id
  FROM tasks t
 WHERE t.id = c.task_id

-- name: ancestry
-- The conversations whose rows a conversation shows, the nearest first, and up to which version.
SELECT a.conversation_id, a.last_version
  FROM conversation_ancestry(%(tenant)s, %(conversation_id)s) AS a
 ORDER BY a.shift
