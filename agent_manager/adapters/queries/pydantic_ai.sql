-- name: pydantic_ai_records
-- Of each conversation its version, whether it is deleted, and its last record that is not hidden because the
-- conversation went back to an earlier version; no record if it has none.
SELECT known.number, latest.version, deletion.event_type = 'conversation.deleted', e.position, e.timestamp, e.version,
       e.schema_version, e.conversation_id, e.id, e.tenant_id, e.event_type, e.actor, e.content, e.metadata, e.salt,
       e.digest
  FROM unnest(%(conversations)s::uuid[]) WITH ORDINALITY AS known (conversation_id, number)
 CROSS JOIN LATERAL (
           SELECT coalesce(max(e.version), 0) AS version
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = known.conversation_id
       ) AS latest
  LEFT JOIN LATERAL (
           SELECT e.event_type
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = known.conversation_id
              AND e.event_type IN ('conversation.deleted', 'conversation.reactivated')
            ORDER BY e.version DESC
            LIMIT 1
       ) AS deletion ON true
  LEFT JOIN LATERAL (
           SELECT e.*
             FROM events e
            WHERE e.tenant_id = %(tenant)s
              AND e.conversation_id = known.conversation_id
              AND e.event_type = 'pydantic_ai.record'
              AND e.salt IS NOT NULL
              AND NOT EXISTS (
                      SELECT
                        FROM hiding_events(e.tenant_id, e.conversation_id, e.version) AS h
                       WHERE h.event_type = 'conversation.rewound'
                  )
            ORDER BY e.version DESC
            LIMIT 1
       ) AS e ON true
 ORDER BY known.number

-- name: pydantic_ai_history
-- An entry and those before it, oldest first; an entry names the one before it, and its conversation if it is another.
WITH RECURSIVE history AS (
    SELECT e.*, 1 AS number
      FROM events e
     WHERE e.tenant_id = %(tenant)s
       AND e.conversation_id = %(conversation_id)s
       AND e.id = %(id)s
       AND e.metadata ? 'pydantic_ai'
     UNION ALL
    SELECT e.*, h.number + 1
      FROM history h
      JOIN events e
        ON e.tenant_id = %(tenant)s
       AND e.conversation_id = coalesce((h.metadata #>> '{pydantic_ai,parent_conversation}')::uuid, h.conversation_id)
       AND e.id = coalesce(h.metadata #>> '{pydantic_ai,parent_event}', h.metadata #>> '{pydantic_ai,parent}')::uuid
     WHERE h.number < %(limit)s
)
SELECT h.position, h.timestamp, h.version, h.schema_version, h.conversation_id, h.id, h.tenant_id, h.event_type,
       h.actor, h.content, h.metadata, h.salt, h.digest
  FROM history h
 ORDER BY h.number DESC

-- name: pydantic_ai_conversations
-- The conversations that have a record, those that changed last first.
SELECT c.id
  FROM conversations c
 WHERE c.tenant_id = %(tenant)s
   AND c.metadata ? 'pydantic_ai'
   AND c.metadata #>> '{pydantic_ai,scope}' = %(scope)s
   AND NOT c.is_deleted
 ORDER BY c.updated_at DESC, c.id DESC
 LIMIT %(limit)s

-- name: pydantic_ai_conversation_of
-- The conversation of an entry.
SELECT m.conversation_id
  FROM messages m
 WHERE m.tenant_id = %(tenant)s
   AND m.id = %(id)s
