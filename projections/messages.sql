-- Apply a batch of the log to the table messages: a row for each message added, under the id of its event, with the
-- outcome of its answer.
--
-- The column content is never null: it has the text that was sent, otherwise the text of the parts. So that the message
-- can be returned as it was sent (eventstore/message_format.py), extra has a text that was sent empty or beside parts, and
-- member_order has the order of its members (eventstore/member_order.py).
INSERT INTO messages (id, conversation_id, tenant_id, version, role, content, parts, created_at, actor, given_id,
                      extra, metadata, member_order, status)
SELECT b.id, b.conversation_id, b.tenant_id, b.version,
       b.content ->> 'role',
       coalesce(b.content ->> 'content',
                text_of_parts(b.content -> 'parts'),
                text_of_parts(b.content #> '{extra,content}'),
                ''),
       b.content -> 'parts',
       occurred_at(b.metadata, b.timestamp),
       b.actor,
       b.content ->> 'given_id',
       nullif(coalesce(b.content -> 'extra', '{}')
              || CASE WHEN b.content ->> 'content' = '' OR b.content ?& '{content,parts}'
                      THEN jsonb_build_object('content', b.content -> 'content')
                      ELSE '{}'
                 END,
              '{}'),
       b.content -> 'metadata',
       nullif(coalesce(b.metadata #> '{eventstore.member_order,content}', '{}')
              || CASE WHEN b.content ? 'sent_order'
                      THEN jsonb_build_object('sent', b.content -> 'sent_order')
                      ELSE '{}'
                 END,
              '{}'),
       CASE WHEN b.content -> 'awaits_answer' = 'true' THEN 'pending' END
  FROM batch b
 WHERE b.event_type = 'message.added'
 ORDER BY b.position;

-- The latest outcome counts. The content of these events is not validated, and casting it must not fail.
UPDATE messages m
   SET status = a.outcome,
       error  = a.error
  FROM (SELECT DISTINCT ON (b.tenant_id, b.conversation_id, b.content ->> 'message_id')
               b.tenant_id, b.conversation_id, b.version,
               CASE WHEN json_member_is_uuid(b.content, 'message_id') THEN (b.content ->> 'message_id')::uuid END AS id,
               b.content ->> 'outcome' AS outcome,
               b.content ->> 'error' AS error
          FROM batch b
         WHERE b.event_type = 'message.answered'
           AND b.content ->> 'outcome' IN ('answered', 'failed', 'abandoned')
         ORDER BY b.tenant_id, b.conversation_id, b.content ->> 'message_id', b.version DESC) AS a
 WHERE m.tenant_id = a.tenant_id
   AND m.conversation_id = a.conversation_id
   AND m.id = a.id
   AND m.version < a.version
   AND m.status IS NOT NULL;

-- The messages from before a conversation went back to an earlier version.
DELETE FROM messages m
 USING batch r
 WHERE r.event_type = 'conversation.rewound'
   AND m.tenant_id = r.tenant_id
   AND m.conversation_id = r.conversation_id
   AND m.version > (r.content ->> 'to_version')::integer
   AND m.version < r.version;
