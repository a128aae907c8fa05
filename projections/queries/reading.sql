-- name: conversation
-- The first of the conversations that a text may name that exists.
SELECT c.id, c.name, c.is_active, c.created_at, c.updated_at, c.metadata, c.tenant_id, c.given_id, c.is_deleted,
       c.message_count, c.version, c.forked_from, c.member_order
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND c.id = ANY (%(ids)s::uuid[])
 ORDER BY array_position(%(ids)s::uuid[], c.id)
 LIMIT 1

-- name: conversations
-- The parts in braces depend on the order of the list (projections/pages.py). A line is left out if its parameter is not
-- given.
--
-- The shape leaves the planner one plan, with and without statistics: along the index of the order. It does not know the
-- value of a limit that is a query, and assumes a tenth of all rows, so a sort looks expensive; and it does not look into
-- coalesce for conditions that another index serves. Flags are queries, too: a comparison with a known one is free, and
-- for a long list the server would plan each page again to save its cost.
--
-- The rows end where they take the bytes that are given, as far as the server can tell without reading them. The window
-- sums in the order in which the rows come.
SELECT c.id, c.name, c.is_active, c.created_at, c.updated_at, c.metadata, c.tenant_id, c.given_id, c.is_deleted,
       c.message_count, c.version, c.forked_from, c.member_order, c.total
  FROM (SELECT c.*, sum(c.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT c.*, 1000 + estimated_size(c.metadata) AS size
                  FROM conversations c
                 WHERE {within}
                   AND coalesce(true
                                AND c.is_active = (SELECT %(active)s)
                                AND c.is_deleted = (SELECT %(deleted)s)
                       , false)
                 ORDER BY {order}
                 LIMIT (SELECT %(limit)s)) AS c) AS c
 WHERE c.total - c.size < %(bytes)s

-- name: conversations_of_actor
-- See "conversations". The table conversation_actors has the times of the conversations, as far as the projection actors
-- has applied the log.
SELECT c.id, c.name, c.is_active, c.created_at, c.updated_at, c.metadata, c.tenant_id, c.given_id, c.is_deleted,
       c.message_count, c.version, c.forked_from, c.member_order, c.place, c.total
  FROM (SELECT c.*, sum(c.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT c.*, a.updated_at AS place, 1000 + estimated_size(c.metadata) AS size
                  FROM conversation_actors a
                  JOIN conversations c
                    ON c.id = a.conversation_id
                   AND coalesce(c.tenant_id = a.tenant_id, false)
                 WHERE {within}
                   AND coalesce(true
                                AND c.is_active = (SELECT %(active)s)
                                AND c.is_deleted = (SELECT %(deleted)s)
                       , false)
                 ORDER BY {order}
                 LIMIT (SELECT %(limit)s)) AS c) AS c
 WHERE c.total - c.size < %(bytes)s

-- name: memberships
-- In how many conversations the user is a member, counted up to a limit.
SELECT count(*) FROM (SELECT FROM conversation_members m LIMIT %(limit)s) AS m

-- name: rows_of_member
-- The table of a list, for a user who is a member of few conversations: the rows of these, looked up one conversation
-- after the other. OFFSET 0 leaves the planner no other way. The parts in braces depend on the list.
(SELECT r.*
   FROM unnest(ARRAY(SELECT m.conversation_id FROM conversation_members m)) AS own (conversation_id)
  CROSS JOIN LATERAL (
            SELECT r.*
              FROM {table} r
             WHERE r.tenant_id = %(tenant)s
               AND r.{conversation} = own.conversation_id
            OFFSET 0
        ) AS r)

-- name: messages
-- The messages of all conversations. See "conversations".
SELECT m.id, m.conversation_id, m.role, m.content, m.parts, m.created_at, m.metadata, m.tenant_id, m.given_id,
       m.version, m.actor, m.extra, m.status, m.error, m.member_order, m.total
  FROM (SELECT m.*, sum(m.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT m.*, 1000 + estimated_size(m.content) + estimated_size(m.parts)
                       + estimated_size(m.metadata) + estimated_size(m.extra) AS size
                  FROM messages m
                 WHERE {within}
                   AND coalesce(true
                                AND m.role = %(role)s
                                AND m.actor = %(actor)s
                                AND m.created_at >= %(since)s
                                AND m.created_at < %(until)s
                                AND coalesce((SELECT c.is_deleted FROM conversations c WHERE c.tenant_id = m.tenant_id AND c.id = m.conversation_id), false) = (SELECT %(deleted)s)
                       , false)
                 ORDER BY {order}
                 LIMIT (SELECT %(limit)s)) AS m) AS m
 WHERE m.total - m.size < %(bytes)s

-- name: messages_of_conversation
-- The messages of a conversation, and those that it shares if it is a fork (conversation_ancestry), in the order of their
-- places. Of each conversation as many are read as of all, along the index of its versions. Whether and how a message was
-- answered is a fact of the conversation in which it was written.
SELECT m.id, m.conversation_id, m.role, m.content, m.parts, m.created_at, m.metadata, m.tenant_id, m.given_id,
       m.version, m.actor, m.extra, CASE WHEN m.place > 0 THEN m.status END, CASE WHEN m.place > 0 THEN m.error END,
       m.member_order, m.place, m.total
  FROM (SELECT m.*, sum(m.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT m.*, m.version - a.shift AS place
                  FROM conversation_ancestry(%(tenant)s, %(conversation_id)s) AS a
                 CROSS JOIN LATERAL (
                           SELECT m.*, 1000 + estimated_size(m.content) + estimated_size(m.parts)
                                  + estimated_size(m.metadata) + estimated_size(m.extra) AS size
                             FROM messages m
                            WHERE m.conversation_id = a.conversation_id
                              AND m.version <= a.last_version
                              AND {within}
                              AND coalesce(true
                                           AND m.tenant_id = %(tenant)s
                                           AND m.version - a.shift > %(after_version)s
                                           AND m.role = %(role)s
                                           AND m.actor = %(actor)s
                                           AND m.created_at >= %(since)s
                                           AND m.created_at < %(until)s
                                  , false)
                            ORDER BY {order}
                            LIMIT (SELECT %(limit)s)
                       ) AS m
                 ORDER BY place {direction}
                 LIMIT (SELECT %(limit)s)) AS m) AS m
 WHERE m.total - m.size < %(bytes)s

-- name: tasks
-- The tasks of all conversations. See "conversations".
SELECT t.id, t.conversation_id, t.status, t.description, t.created_at, t.updated_at, t.metadata, t.tenant_id,
       t.given_id, t.version, t.status_message,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('artifact_id', a.artifact_id, 'extends', a.extends,
                                                     'last_chunk', a.last_chunk,
                                                     'continues_text', a.continues_text, 'name', a.name,
                                                     'description', a.description, 'parts', a.parts,
                                                     'extra', a.extra, 'metadata', a.metadata,
                                                     'member_order', a.member_order) ORDER BY a.version),
                        '[]')
          FROM task_artifacts a
         WHERE a.task_id = t.id
           AND coalesce(a.tenant_id = t.tenant_id AND a.conversation_id = t.conversation_id, false)) AS artifacts,
       CASE WHEN t.added_history IS NULL THEN t.extra ELSE coalesce(t.extra, jsonb_build_object()) END AS extra,
       t.status_extra,
       CASE WHEN t.added_history IS NULL THEN t.member_order
            ELSE coalesce(t.member_order, jsonb_build_object()) || jsonb_build_object('added_history', t.added_history)
       END AS member_order, t.total
  FROM (SELECT t.*, sum(t.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT t.*, 1000 + estimated_size(t.metadata) + estimated_size(t.status_message)
                       + estimated_size(t.extra) + estimated_size(t.status_extra)
                       + estimated_size(t.added_history)
                       + (SELECT coalesce(sum(estimated_size(a.parts) + estimated_size(a.extra)
                                              + estimated_size(a.metadata)), 0)
                            FROM task_artifacts a
                           WHERE a.task_id = t.id
                             AND coalesce(a.tenant_id = t.tenant_id AND a.conversation_id = t.conversation_id,
                                          false)) AS size
                  FROM tasks t
                 WHERE {within}
                   AND coalesce(true
                                AND t.status = %(status)s
                                AND coalesce((SELECT c.is_deleted FROM conversations c WHERE c.tenant_id = t.tenant_id AND c.id = t.conversation_id), false) = (SELECT %(deleted)s)
                       , false)
                 ORDER BY {order}
                 LIMIT (SELECT %(limit)s)) AS t) AS t
 WHERE t.total - t.size < %(bytes)s

-- name: tasks_of_conversation
-- The tasks of a conversation, and those that it shares if it is a fork. See "tasks" and "messages_of_conversation".
--
-- A task must be folded from the log (folded_tasks) if its row is not the state that the conversation shows: an event
-- after the shared ones has changed it, or an event of a nearer conversation.
WITH ancestry AS MATERIALIZED (
    SELECT a.conversation_id, a.last_version, a.shift
      FROM conversation_ancestry(%(tenant)s, %(conversation_id)s) AS a
)
SELECT t.id, t.conversation_id, t.status, t.description, t.created_at, t.updated_at, t.metadata, t.tenant_id,
       t.given_id, t.version, t.status_message,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('artifact_id', a.artifact_id, 'extends', a.extends,
                                                     'last_chunk', a.last_chunk,
                                                     'continues_text', a.continues_text, 'name', a.name,
                                                     'description', a.description, 'parts', a.parts,
                                                     'extra', a.extra, 'metadata', a.metadata,
                                                     'member_order', a.member_order) ORDER BY a.version),
                        '[]')
          FROM task_artifacts a
         WHERE a.task_id = t.id
           AND coalesce(a.tenant_id = t.tenant_id AND a.conversation_id = t.conversation_id, false)) AS artifacts,
       CASE WHEN t.added_history IS NULL THEN t.extra ELSE coalesce(t.extra, jsonb_build_object()) END AS extra,
       t.status_extra,
       CASE WHEN t.added_history IS NULL THEN t.member_order
            ELSE coalesce(t.member_order, jsonb_build_object()) || jsonb_build_object('added_history', t.added_history)
       END AS member_order, t.must_fold, t.total
  FROM (SELECT t.*, sum(t.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
          FROM (SELECT t.*
                  FROM ancestry a
                 CROSS JOIN LATERAL (
                           SELECT t.*, 1000 + estimated_size(t.metadata) + estimated_size(t.status_message)
                                  + estimated_size(t.extra) + estimated_size(t.status_extra)
                                  + estimated_size(t.added_history)
                                  + (SELECT coalesce(sum(estimated_size(a.parts) + estimated_size(a.extra)
                                                         + estimated_size(a.metadata)), 0)
                                       FROM task_artifacts a
                                      WHERE a.task_id = t.id
                                        AND coalesce(a.tenant_id = t.tenant_id
                                                     AND a.conversation_id = t.conversation_id, false)) AS size
                             FROM (SELECT t.*,
                                          EXISTS (SELECT
                                                    FROM ancestry n
                                                   CROSS JOIN LATERAL (SELECT o.first_version
                                                                         FROM tasks o
                                                                        WHERE o.tenant_id = %(tenant)s
                                                                          AND o.conversation_id = n.conversation_id
                                                                          AND o.id = t.id
                                                                       OFFSET 0) AS o
                                                   WHERE n.shift > a.shift
                                                     AND o.first_version <= n.last_version) AS is_continued,
                                          t.version > a.last_version
                                          OR EXISTS (SELECT
                                                       FROM ancestry n
                                                      CROSS JOIN LATERAL (SELECT o.first_version
                                                                            FROM tasks o
                                                                           WHERE o.tenant_id = %(tenant)s
                                                                             AND o.conversation_id = n.conversation_id
                                                                             AND o.id = t.id
                                                                          OFFSET 0) AS o
                                                      WHERE n.shift < a.shift
                                                        AND o.first_version <= n.last_version) AS must_fold
                                     FROM tasks t
                                    WHERE t.tenant_id = %(tenant)s
                                      AND t.conversation_id = a.conversation_id) AS t
                            WHERE {within}
                              AND coalesce(t.first_version <= a.last_version
                                           AND NOT t.is_continued
                                           AND (t.must_fold OR t.status = %(status)s)
                                  , false)
                            ORDER BY {order}
                            LIMIT (SELECT %(limit)s)
                       ) AS t
                 ORDER BY {order}
                 LIMIT (SELECT %(limit)s)) AS t) AS t
 WHERE t.total - t.size < %(bytes)s

-- name: message_place
-- The conversation in which a message was written, and its version.
SELECT e.conversation_id, e.version
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = ANY (%(ids)s::uuid[])
   AND e.id = %(message)s
   AND e.event_type = 'message.added'
