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

-- name: deleted_version
-- The last version of a conversation that is deleted; none if it is not, so that what another writer has added since is
-- not taken for a part of what was deleted.
SELECT latest.version
  FROM (SELECT e.version
          FROM events e
         WHERE e.tenant_id = %(tenant)s
           AND e.conversation_id = %(conversation_id)s
         ORDER BY e.version DESC
         LIMIT 1) AS latest
 CROSS JOIN (SELECT e.event_type
               FROM events e
              WHERE e.tenant_id = %(tenant)s
                AND e.conversation_id = %(conversation_id)s
                AND e.event_type IN ('conversation.deleted', 'conversation.reactivated')
              ORDER BY e.version DESC
              LIMIT 1) AS state
 WHERE state.event_type = 'conversation.deleted'
