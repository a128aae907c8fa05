-- name: resolve
-- The first of the conversations that has events up to a position, the version that it had come to there, and whether it
-- was deleted then. For a user
-- it is one of which they are a member; that is asked before anything else, so that a conversation which is not theirs
-- ends it where one that there is not does.
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
    OR (SELECT true  -- not EXISTS, for which all that the user is a member of might be read
          FROM conversation_members m
         WHERE m.tenant_id = %(tenant)s
           AND m.conversation_id = i.id
           AND m.user_id = %(user)s)
 ORDER BY i.number
 LIMIT 1

-- name: look
-- How far the projections are, and a mark that changes whenever something in their tables may have changed: a share went
-- on, a table was emptied and refilled or swapped for another, something parked was applied.
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
-- A mark that changes whenever an event may have become visible: the last position that was handed out, and the appends
-- in flight. An append takes its gate lock, then a position, commits, and lets go of the lock (docs/concepts/order.md). So
-- an event that becomes visible after this look has its lock here and not in a later look, or a position beyond. For that
-- the position must be read before the locks: the lateral query cannot begin without it.
--
-- The horizon would not do: it stands still while any append is in flight, and events above it are visible already.
-- On a standby there are no locks to see; there it is how far it has replayed.
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
-- Who may see a conversation, for those who may: nobody else gets a row.
SELECT m.user_id, m.access
  FROM members_of(%(conversation)s) AS m
 ORDER BY m.access <> 'own', m.user_id

-- name: visible_ids
-- Those of the conversations of which the user is a member. What there is not, and what others keep to themselves, is
-- looked for in the same way, and as far.
SELECT m.conversation_id
  FROM conversation_members m
 WHERE m.tenant_id = %(tenant)s
   AND m.user_id = %(user)s
   AND m.conversation_id = ANY (%(ids)s::uuid[])
