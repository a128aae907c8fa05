-- name: has_eraser
-- Return whether this database has the role that erases. Without roles, the owner of everything erases.
SELECT coalesce(has_column_privilege(to_regrole('eventstore_eraser')::oid, 'events', 'salt', 'UPDATE'), false)

-- name: set_eraser_scope
SELECT set_config('eventstore.tenant', %(tenant)s, true), set_config('eventstore.user', %(user)s, true)

-- name: versions_of_events
-- The versions of events that a caller may see, by their ids.
SELECT e.id, e.version
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.id = ANY (%(ids)s::uuid[])
   AND e.event_type NOT IN ('conversation.erased', 'event.erased')

-- name: has_events
-- Return whether a caller may see a conversation.
SELECT EXISTS (SELECT FROM events e WHERE e.tenant_id = %(tenant)s AND e.conversation_id = %(conversation_id)s)

-- name: forks_with_the_name
-- The forks of a conversation, and those of these forks, that were begun with a name that the one before had, if that name
-- is to be erased: they repeat it.
WITH RECURSIVE named AS (
    SELECT %(conversation_id)s::uuid AS conversation_id
     UNION
    SELECT f.conversation_id
      FROM named n
      JOIN events f
        ON f.tenant_id = %(tenant)s
       AND f.event_type = 'conversation.forked'
       AND f.content ->> 'source_conversation_id' = n.conversation_id::text
     WHERE f.version = 1
       AND EXISTS (
               SELECT
                 FROM events e
                WHERE e.tenant_id = %(tenant)s
                  AND e.conversation_id = n.conversation_id
                  AND e.event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked')
                  AND e.content ->> 'name' = f.content ->> 'name'
                  AND e.content ->> 'name' <> ''
                  AND (e.conversation_id <> %(conversation_id)s OR %(versions)s::int4multirange IS NULL
                       OR e.version <@ %(versions)s::int4multirange)
           )
)
SELECT n.conversation_id FROM named n WHERE n.conversation_id <> %(conversation_id)s

-- name: check_erasure
SELECT check_erasure(%(tenant)s, %(conversation_id)s, %(versions)s::int4multirange)

-- name: version_of
SELECT max(e.version) FROM events e WHERE e.tenant_id = %(tenant)s AND e.conversation_id = %(conversation_id)s

-- name: check_holds
SELECT check_holds(%(tenant)s, %(conversation_id)s, %(versions)s::int4multirange)

-- name: check_holds_of_user
SELECT check_holds_of_user(%(tenant)s, %(name)s)

-- name: erase_events
SELECT e.erased_versions::text, e.erased_until, e.events
  FROM erase_events(%(tenant)s, %(conversation_id)s, %(versions)s::int4multirange, %(until)s, %(erases_members)s,
                    %(milliseconds)s) AS e

-- name: refold_conversation
SELECT r.projection, r.stage, r.problem FROM refold_conversation(%(tenant)s, %(conversation_id)s) AS r

-- name: append_erasure
SELECT a.position, a.version, a.timestamp
  FROM append_erasure(%(tenant)s, %(conversation_id)s, %(id)s, %(erased)s::int4multirange, %(until)s, %(is_whole)s,
                      %(erases_members)s, %(reason)s, %(actor)s) AS a

-- name: erasable_rows
SELECT r.table_name, r.rows
  FROM erasable_rows(%(tenant)s, %(conversation_id)s, %(versions)s::int4multirange) AS r
 WHERE r.rows > 0

-- name: erasure_of_user
SELECT u.conversation_id, u.versions::text, u.erases_members
  FROM erasure_of_user(%(tenant)s, %(name)s) AS u
 ORDER BY u.versions IS NOT NULL, u.conversation_id

-- name: erase_identity
SELECT erase_identity(%(tenant)s, %(name)s)

-- name: receipts
-- The receipts of erasures of a tenant, oldest first; a line is left out if its parameter is not given.
SELECT e.position, e.timestamp, e.version, e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type,
       e.actor, e.content, e.metadata, e.salt, e.digest
  FROM events e
 WHERE e.event_type IN ('conversation.erased', 'event.erased')
   AND e.tenant_id = %(tenant)s
 ORDER BY e.position
