-- What tells whether a state read before is still the present one: the conversation's version, and the files of the tables
-- it was read from, which are others once a table was emptied and refilled, or swapped for a new one.
SELECT c.id, c.version, pg_relation_filenode(c.tableoid), pg_relation_filenode(to_regclass('messages')),
       pg_relation_filenode(to_regclass('tasks')), pg_relation_filenode(to_regclass('task_artifacts'))
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND c.id = ANY (%(ids)s::uuid[])
 ORDER BY array_position(%(ids)s::uuid[], c.id)
 LIMIT 1
