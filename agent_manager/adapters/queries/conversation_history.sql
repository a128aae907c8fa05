-- name: latest_events
-- Events of a conversation up to a version, the latest first, with what their readers need.
SELECT e.id, e.version, e.event_type, e.content, e.metadata #> '{eventstore.member_order,content}'
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
   AND e.version <= %(last)s
   -- Of an erased event of a framework's own nothing is left.
   AND (e.salt IS NOT NULL OR e.event_type ~ '^(conversation|message|task)[.]')
 ORDER BY e.version DESC
 LIMIT %(limit)s

-- name: conversation_state
-- The version of a conversation, and whether it is deleted.
SELECT coalesce(max(e.version), 0),
       coalesce((SELECT d.event_type = 'conversation.deleted'
                   FROM events d
                  WHERE d.tenant_id = %(tenant)s
                    AND d.conversation_id = %(conversation_id)s
                    AND d.event_type IN ('conversation.deleted', 'conversation.reactivated')
                  ORDER BY d.version DESC
                  LIMIT 1), false)
  FROM events e
 WHERE e.tenant_id = %(tenant)s
   AND e.conversation_id = %(conversation_id)s
