-- What tells whether a state read before is still the present one: the conversation's version, and the files of the tables
-- it was read from, which are others once a table was emptied and refilled, or swapped for a new one; and what of it is
-- parked, since its rows come later then, under a version that they have already.
SELECT c.id, c.version, pg_relation_filenode(c.tableoid), pg_relation_filenode(to_regclass('messages')),
       pg_relation_filenode(to_regclass('tasks')), pg_relation_filenode(to_regclass('task_artifacts')),
       (SELECT string_agg(format('%%s %%s', p.projection, p.position), ',' ORDER BY p.projection)
          FROM parked p
         WHERE p.stage = 'live'
           AND p.tenant_id = c.tenant_id
           AND p.conversation_id = c.id)
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND c.id = ANY (%(ids)s::uuid[])
 ORDER BY array_position(%(ids)s::uuid[], c.id)
 LIMIT 1
