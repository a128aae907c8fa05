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
