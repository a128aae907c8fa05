-- Apply a batch of the log to the table conversations. The first event of a conversation, whatever its type, creates the
-- row; a fork is one whose first event is conversation.forked. The conversation in which a tenant registers its agents is
-- not listed, nor are those with the records of a2a-sdk's stores (agent_manager/adapters/a2a_sdk.py).
WITH rewound AS MATERIALIZED (
    -- How many messages were left when a conversation last went back to an earlier version: those that neither this event
    -- nor an earlier one like it hides.
    SELECT r.tenant_id, r.conversation_id, r.version,
           (SELECT count(*)
              FROM (SELECT e.version, e.event_type,
                           min(CASE e.event_type WHEN 'conversation.rewound' THEN (e.content ->> 'to_version')::integer END)
                               OVER (ORDER BY e.version DESC) AS to_version
                      FROM events e
                     WHERE e.tenant_id = r.tenant_id
                       AND e.conversation_id = r.conversation_id
                       AND e.version <= r.version
                       AND e.event_type IN ('message.added', 'conversation.rewound')) AS e
             WHERE e.event_type = 'message.added'
               AND e.version <= e.to_version) AS messages
      FROM (SELECT b.tenant_id, b.conversation_id, max(b.version) AS version
              FROM batch b
             WHERE b.event_type = 'conversation.rewound'
             GROUP BY b.tenant_id, b.conversation_id) AS r
),
folded AS MATERIALIZED (
    SELECT b.tenant_id,
           b.conversation_id,
           max(b.version) AS version,
           (array_agg(b.content ->> 'name' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('conversation.created', 'conversation.renamed', 'conversation.forked')
                         AND b.content ? 'name'))[1] AS name,
           (array_agg(b.event_type = 'conversation.reactivated' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('conversation.archived', 'conversation.reactivated')))[1] AS is_active,
           (array_agg(b.event_type = 'conversation.deleted' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('conversation.deleted', 'conversation.reactivated')))[1] AS is_deleted,
           (array_agg(b.content ->> 'given_id' ORDER BY b.version)
               FILTER (WHERE b.event_type = 'conversation.created' AND b.content ? 'given_id'
                         AND b.content ->> 'given_id' <> b.conversation_id::text
                         AND conversation_uuid(b.tenant_id, b.content ->> 'given_id') = b.conversation_id))[1] AS given_id,
           (array_agg(jsonb_build_object('conversation_id', b.content -> 'source_conversation_id',
                                         'version', b.content -> 'source_version'))
               FILTER (WHERE b.event_type = 'conversation.forked' AND b.version = 1))[1] AS forked_from,
           (array_agg(b.content -> 'metadata' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('conversation.created', 'conversation.forked')
                         AND b.content ? 'metadata'))[1] AS metadata,
           (array_agg(b.metadata #> '{eventstore.member_order,content}' ORDER BY b.version DESC)
               FILTER (WHERE b.event_type IN ('conversation.created', 'conversation.forked')
                         AND b.content ? 'metadata'))[1] AS member_order,
           max(r.messages) AS messages_left,
           count(*) FILTER (WHERE b.event_type = 'message.added' AND b.version > coalesce(r.version, 0)) AS messages,
           count(*) FILTER (WHERE b.salt IS NULL) AS erased,
           bool_and(b.event_type IN ('conversation.erased', 'event.erased')) AS has_only_receipts,
           (array_agg(occurred_at(b.metadata, b.timestamp) ORDER BY b.version))[1] AS created_at,
           max(occurred_at(b.metadata, b.timestamp)) AS updated_at
      FROM batch b
      LEFT JOIN rewound r
        ON r.tenant_id = b.tenant_id
       AND r.conversation_id = b.conversation_id
     WHERE b.event_type NOT IN ('agent.registered', 'agent.unregistered', 'a2a.home', 'a2a.push_notification')
     GROUP BY b.tenant_id, b.conversation_id
),
updated AS (
    UPDATE conversations c
       SET version       = f.version,
           name          = coalesce(f.name, c.name),
           is_active     = coalesce(f.is_active, c.is_active),
           is_deleted    = coalesce(f.is_deleted, c.is_deleted),
           given_id      = coalesce(c.given_id, f.given_id),
           metadata      = coalesce(f.metadata, c.metadata),
           member_order  = CASE WHEN f.metadata IS NULL THEN c.member_order ELSE f.member_order END,
           message_count = coalesce(f.messages_left, c.message_count) + f.messages,
           erased_count  = c.erased_count + f.erased,
           updated_at    = greatest(c.updated_at, f.updated_at)
      FROM folded f
     WHERE c.tenant_id = f.tenant_id
       AND c.id = f.conversation_id
)
INSERT INTO conversations (id, tenant_id, name, is_active, is_deleted, created_at, updated_at, message_count, erased_count,
                           version, given_id, forked_from, metadata, member_order)
SELECT f.conversation_id, f.tenant_id, coalesce(f.name, ''), coalesce(f.is_active, true), coalesce(f.is_deleted, false),
       f.created_at, f.updated_at, coalesce(f.messages_left, 0) + f.messages, f.erased, f.version, f.given_id,
       f.forked_from, f.metadata, f.member_order
  FROM folded f
 WHERE NOT f.has_only_receipts  -- of a conversation that is not listed
   AND NOT EXISTS (
           SELECT
             FROM conversations c
            WHERE c.tenant_id = f.tenant_id
              AND c.id = f.conversation_id
       );
