-- name: resolve
-- The first of the conversations that has events up to a position, its version at that position, and whether it was
-- deleted then. For a user, only conversations of which they are a member: their membership is checked first, so that
-- the query takes the same steps for a conversation that does not exist and for one that is not visible to them.
SELECT i.id, latest.version,
       coalesce((SELECT e.event_type = 'conversation.deleted'
                   FROM events e
                  WHERE e.tenant_id = %(tenant)s
                    AND e.conversation_id = i.id
                    AND e.position <= %(position)s
                    AND e.event_type IN ('conversation.deleted', 'conversation.reactivated')
                  ORDER BY e.version DESC
                  LIMIT 1), false)
  FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS i (id, number)
 CROSS JOIN LATERAL (SELECT e.version
                       FROM events e
                      WHERE e.tenant_id = %(tenant)s
                        AND e.conversation_id = i.id
                        AND e.position <= %(position)s
                      ORDER BY e.version DESC
                      LIMIT 1) AS latest
 WHERE %(user)s::text IS NULL
    OR (SELECT true  -- not EXISTS: the planner might read all memberships of the user for it
          FROM conversation_members m
         WHERE m.tenant_id = %(tenant)s
           AND m.conversation_id = i.id
           AND m.user_id = %(user)s)
 ORDER BY i.number
 LIMIT 1

-- name: tables_change_token
-- The position that the projections have applied, and a change token of their tables. It changes when a partition
-- advances, a table is truncated or swapped, or parked events are applied.
SELECT applied.position,
       md5(concat_ws('|',
           (SELECT string_agg(c.position::text, ' ' ORDER BY c.projection, c.partition)
              FROM checkpoints c
             WHERE c.projection = ANY (%(projections)s)
               AND c.stage = 'live'),
           (SELECT string_agg(pg_relation_filenode(to_regclass(t.name))::text, ' ' ORDER BY t.name)
              FROM unnest(%(tables)s::text[]) AS t (name)),
           (SELECT string_agg(format('%%s %%s %%s', p.projection, p.conversation_id, p.position), ' '
                              ORDER BY p.projection, p.tenant_id, p.conversation_id)
              FROM parked p
             WHERE p.projection = ANY (%(projections)s)
               AND p.stage = 'live')))
  FROM ({position}) AS applied (position)

-- name: log_change_token
-- A token that changes whenever an event may have become visible: the last assigned position and the appends in flight.
-- An append takes its gate lock, takes a position, commits, and releases the lock (docs/concepts/order.md). So the append
-- of an event that becomes visible after this query either holds its lock now and not at the next query, or has a later
-- position. For that the position must be read before the locks: the lateral query cannot start without it.
--
-- The horizon would not do: it stands still while any append is in flight, and events above it are visible already.
-- A standby has no such locks; its token is the replayed WAL position.
SELECT concat_ws('|', pg_postmaster_start_time(), last.position, in_flight.appends,
                 CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END)
  FROM (SELECT last_position() OFFSET 0) AS last (position)
 CROSS JOIN LATERAL (SELECT string_agg(concat_ws(' ', l.objid, l.virtualtransaction), ','
                                       ORDER BY l.virtualtransaction, l.objid)
                       FROM pg_locks l
                      WHERE last.position IS NOT NULL
                        AND l.locktype = 'advisory'
                        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                        AND l.classid = 'events_position'::regclass::oid
                        AND l.objsubid = 2
                        AND l.granted) AS in_flight (appends)

-- name: members
-- The users who may see a conversation, the owner first, after one of them; no rows for callers who may not see it.
SELECT m.user_id, m.access
  FROM members_of(%(conversation)s) AS m
 WHERE (m.access <> 'own', m.user_id) > (%(after_others)s, %(after)s)
 ORDER BY m.access <> 'own', m.user_id
 LIMIT %(limit)s

-- name: is_owner
-- Whether a user owns a conversation; false for callers who may not see it.
SELECT EXISTS (SELECT FROM members_of(%(conversation)s) AS m WHERE m.user_id = %(user)s AND m.access = 'own')

-- name: visible_ids
-- The conversations of which the user is a member. The query takes the same steps for conversations that do not exist
-- and for those of others.
SELECT m.conversation_id
  FROM conversation_members m
 WHERE m.tenant_id = %(tenant)s
   AND m.user_id = %(user)s
   AND m.conversation_id = ANY (%(ids)s::uuid[])
