-- name: resolve
-- The first of the conversations that has events up to a position, its version at that position, whether it was deleted
-- then, and whether it is a fork; that of administrative acts is left out. For a user, only conversations that have them
-- as a member: their membership is checked first, so that the query takes the same steps for a conversation that does
-- not exist and for one that is not visible to them.
SELECT i.id, latest.version,
       coalesce((SELECT e.event_type = 'conversation.deleted'
                   FROM events e
                  WHERE e.tenant_id = %(tenant)s
                    AND e.conversation_id = i.id
                    AND e.position <= %(position)s
                    AND e.event_type IN ('conversation.deleted', 'conversation.reactivated')
                  ORDER BY e.version DESC
                  LIMIT 1), false),
       EXISTS (SELECT
                 FROM events e
                WHERE e.tenant_id = %(tenant)s
                  AND e.conversation_id = i.id
                  AND e.version = 1
                  AND e.event_type = 'conversation.forked')
  FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS i (id, number)
 CROSS JOIN LATERAL (SELECT e.version
                       FROM events e
                      WHERE e.tenant_id = %(tenant)s
                        AND e.conversation_id = i.id
                        AND e.position <= %(position)s
                      ORDER BY e.version DESC
                      LIMIT 1) AS latest
 WHERE i.id <> administration_id()
   AND (%(user)s::text IS NULL
        OR (SELECT true  -- not EXISTS: the planner might read all memberships of the user for it
              FROM conversation_members m
             WHERE m.tenant_id = %(tenant)s
               AND m.conversation_id = i.id
               AND m.user_id = %(user)s))
 ORDER BY i.number
 LIMIT 1

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
-- The conversations that have the user as a member. The query takes the same steps for conversations that do not exist
-- and for those of others.
SELECT m.conversation_id
  FROM conversation_members m
 WHERE m.tenant_id = %(tenant)s
   AND m.user_id = %(user)s
   AND m.conversation_id = ANY (%(ids)s::uuid[])
