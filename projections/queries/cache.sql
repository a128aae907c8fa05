-- name: change_token
-- The version of a conversation; how much of it was erased; the files of the tables, which are others once a table was emptied and refilled, or
-- swapped for a new one; what of it is parked, whose rows come later under a version that the row has already; and what a
-- fork shares, as far as it may be read.
SELECT c.id, c.version, c.erased_count, pg_relation_filenode(c.tableoid), pg_relation_filenode(to_regclass('messages')),
       pg_relation_filenode(to_regclass('tasks')), pg_relation_filenode(to_regclass('task_artifacts')),
       (SELECT string_agg(format('%%s %%s', p.projection, p.position), ',' ORDER BY p.projection, p.position)
          FROM parked p
         WHERE p.stage = 'live'
           AND p.tenant_id = c.tenant_id
           AND (p.conversation_id = c.id
                OR c.forked_from IS NOT NULL
                   AND EXISTS (SELECT
                                 FROM conversation_ancestry(c.tenant_id, c.id) AS a
                                WHERE a.conversation_id = p.conversation_id))),
       CASE WHEN c.forked_from IS NOT NULL THEN
           (SELECT string_agg(format('%%s %%s %%s', s.id, least(s.version, a.last_version), s.erased_count), ','
                              ORDER BY a.shift)
              FROM conversation_ancestry(c.tenant_id, c.id) AS a
              JOIN conversations s
                ON s.tenant_id = c.tenant_id
               AND s.id = a.conversation_id)
       END
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND c.id = ANY (%(ids)s::uuid[])
 ORDER BY array_position(%(ids)s::uuid[], c.id)
 LIMIT 1

-- name: one_snapshot
-- All statements of the transaction see one snapshot.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: event_positions
-- The positions of the last events of conversations up to a version.
SELECT n.conversation_id, e.position
  FROM unnest(%(conversations)s::uuid[], %(versions)s::int[]) AS n (conversation_id, version)
 CROSS JOIN LATERAL (
           SELECT e.position
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = n.conversation_id
              AND e.version <= n.version
            ORDER BY e.version DESC
            LIMIT 1
       ) AS e
