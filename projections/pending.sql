-- Apply a batch of the log to the table pending_messages: a row for each message that awaits an answer, until it is
-- answered. Ids are compared as texts, which cannot fail, whatever the log holds.
DELETE FROM pending_messages p
 USING batch b
 WHERE b.event_type = 'message.answered'
   AND p.tenant_id = b.tenant_id
   AND p.conversation_id = b.conversation_id
   AND p.id::text = b.content ->> 'message_id'
   AND p.position < b.position;

WITH answered AS MATERIALIZED (  -- looked up once, however many events a conversation has
    SELECT b.tenant_id, b.conversation_id, b.position, b.content ->> 'message_id' AS message_id
      FROM batch b
     WHERE b.event_type = 'message.answered'
)
INSERT INTO pending_messages (tenant_id, conversation_id, id, position, given_id, created_at)
SELECT b.tenant_id, b.conversation_id, b.id, b.position, b.content ->> 'given_id', occurred_at(b.metadata, b.timestamp)
  FROM batch b
 WHERE b.event_type = 'message.added'
   AND b.content -> 'awaits_answer' = 'true'
   AND NOT EXISTS (
           SELECT
             FROM answered a
            WHERE a.tenant_id = b.tenant_id
              AND a.conversation_id = b.conversation_id
              AND a.message_id = b.id::text
              AND a.position > b.position
       )
 ORDER BY b.position;

-- The messages from before a conversation went back to an earlier version.
DELETE FROM pending_messages p
 USING batch r, events e
 WHERE r.event_type = 'conversation.rewound'
   AND p.tenant_id = r.tenant_id
   AND p.conversation_id = r.conversation_id
   AND p.position < r.position
   AND e.tenant_id = p.tenant_id
   AND e.conversation_id = p.conversation_id
   AND e.id = p.id
   AND e.version > (r.content ->> 'to_version')::integer;
